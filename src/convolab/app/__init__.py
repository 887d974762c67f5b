"""The page of `convolab app`: what the command line does, in a browser on this machine.

| module | what it does |
|---|---|
| `server` | puts all together and answers requests |
| `safety` | which requests are answered at all, and with which headers |
| `sessions` | a browser's uploads, in memory |
| `folders` | the runs and studies below the folder that the page shows, and nothing else |
| `worker` | one thread that computes what is clicked, and may be cancelled |
| `jobs` | trainings and studies: processes of their own, one after another |
| `shown_images`, `networks` | the images and the networks that are looked at: chosen, kept loaded, sent to the browser |
| `progress` | how far a long computation is |
| `controls` | what is typed into controls, as numbers |
| `choices`, `forms` | what controls offer, and what their values mean |
| `same_as` | the same as a command and as Python |
| `answers` | an endpoint's arguments and its answer as JSON |

**A tab is added** in four steps:
1. `tabs/NAME.py` has `TAB = Tab("name", "Title", routes)`; its endpoints are made by `answers.json_route` (in a thread of
   their own) or `answers.computed_route` (in the one thread that computes, cancelled by the next of its kind). It may
   import `convolab`, starlette and the modules above, and nothing else: a contract in pyproject.toml holds that.
2. Its name goes into `TAB_NAMES` of `tabs/__init__.py`; that is the order on the page.
3. `templates/NAME.html` is the inside of its panel: controls with labels. A control with `data-state="name.key"` has its
   value in the address by itself, and `<div class="same"></div>` becomes the box of `same_as`.
4. `static/NAME.js` exports `start(panel)`, called when the tab is first shown. `core.js` has what all need: `get` and
   `post` (errors become the panel's one line), `onState`, `showSame`, `element`; `chart.js` draws lines and intervals,
   `inputs.js` has the fields for images, networks and classes, `maps.js` colors maps and finds the boxes in them.
"""
