// Before the first paint: dark or light, and large type, as the address says.
"use strict";
{
  const query = new URLSearchParams(location.search);
  const theme = query.get("theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  if (query.get("projector") === "1") document.documentElement.dataset.projector = "1";
}
