"""Files of users, opened with the rights of whoever brings them: the kernel judges, not we."""
