"""The names of the files in a run's folder. It imports nothing: whoever only looks for a run needs no torch."""

RECIPE_FILE = "recipe.toml"
METRICS_FILE = "metrics.jsonl"
SUMMARY_FILE = "summary.json"
TEST_FILE = "test.json"
LOG_FILE = "log.json"
BEST_FILE, LAST_FILE = "best.safetensors", "last.safetensors"
WEIGHTS_FILES = (BEST_FILE, LAST_FILE)
STATE_FILE = "state.safetensors"
PREVIOUS_STATE_FILE = "state.previous.safetensors"
CODE_FOLDER = "code"  # copies of the code of a person's own parts
