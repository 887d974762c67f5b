"""Charts in the colors of a page."""

from convolab.plots.page_style import apply_page_style, css_variable


def test_colors_are_replaced_by_css_variables_but_names_of_colors_in_data_are_not() -> None:
    scale = {"domain": ["black"], "range": ["#0072B2"]}
    spec = {"mark": {"color": "black"}, "encoding": {"color": {"scale": scale, "title": "black", "legend": {}}}}
    css_by_color = {"black": "var(--ink)", "#0072B2": css_variable("#0072B2")}
    styled = apply_page_style(spec, css_by_color, has_legend=False)
    themed = {"domain": ["black"], "range": ["var(--c-0072B2)"]}
    encoding = {"color": {"scale": themed, "title": "black", "legend": None}}
    assert styled == {"mark": {"color": "var(--ink)"}, "encoding": encoding}
