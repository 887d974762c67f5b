"""The page of the synthetic study, and the data of its charts."""

import json
import re

import pytest
from support.synthetic_study import synthetic_study

from convolab.reports.studies import study_report_html


@pytest.fixture(scope="session")
def page() -> str:
    return study_report_html(synthetic_study())


@pytest.fixture(scope="session")
def figures(page) -> list[dict]:
    """The data of the charts on the page."""
    return json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1])["figures"]
