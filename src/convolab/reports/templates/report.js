// An arm of the legend that is hovered over, or selected by a click, stands out on all charts of its card.
for (const legend of document.querySelectorAll(".legend")) {
  const buttons = [...legend.querySelectorAll("button")];
  const charts = legend.closest(".card").querySelectorAll("[data-by-arm]");
  const selected = () => buttons.find(button => button.getAttribute("aria-pressed") === "true")?.dataset.arm ?? "";
  const show = arm => charts.forEach(chart => views.get(chart)?.signal("focus", arm).runAsync());
  for (const button of buttons) {
    button.addEventListener("pointerenter", () => show(button.dataset.arm));
    button.addEventListener("pointerleave", () => show(selected()));
    button.addEventListener("click", () => {
      const pressed = button.getAttribute("aria-pressed") === "true";
      buttons.forEach(other => other.setAttribute("aria-pressed", "false"));
      button.setAttribute("aria-pressed", String(!pressed));
      show(selected());
    });
  }
}
