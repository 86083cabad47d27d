"""The containers' health check: exit 0 if the URL answers 200, else say what it answered."""

import http.client
import sys
from urllib.parse import urlsplit

TIMEOUT = 4.0


def main(url: str) -> str | None:
    """What is wrong, or None. A proxy of the environment is deliberately not asked."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT)
    try:
        connection.request("GET", parts.path)
        with connection.getresponse() as response:
            said = response.read(1000).decode(errors="replace")
            return None if response.status == 200 else f"{url}: {response.status} {said}"
    except (OSError, http.client.HTTPException) as exc:
        return f"{url}: {exc}"
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
