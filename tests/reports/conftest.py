"""The page of the made-up study, and what it draws."""

import json
import re

import pytest
from support.made_up_study import made_up

from convolab.reports.studies import study_report_html


@pytest.fixture(scope="session")
def page() -> str:
    return study_report_html(made_up())


@pytest.fixture(scope="session")
def figures(page) -> list[dict]:
    """What the page's charts are drawn from."""
    return json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1])["figures"]
