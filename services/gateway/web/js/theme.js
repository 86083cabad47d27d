// Before the first paint: the theme that was chosen here, or the system's.
"use strict";
const chosen = localStorage.getItem("dray.theme");
if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
