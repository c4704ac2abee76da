"""Ray makes a powerful service account in a project, unless it is there; the page says how it is.

Google's libraries are not needed: Ray's own code asks a project that is made up.
"""

from __future__ import annotations

import importlib
import re
import sys
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest
from machines import ROOT, read

pytestmark = pytest.mark.ray
GOOGLE = (
    *("google.oauth2", "google.oauth2.service_account", "google.oauth2.credentials"),
    *("google_auth_httplib2", "googleapiclient", "googleapiclient.discovery", "httplib2"),
)


class HttpError(Exception):
    """As Google's: with a status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.resp = MagicMock(status=status)


@pytest.fixture
def gcp(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Ray's module, which imports Google's libraries."""
    errors = MagicMock(HttpError=HttpError)
    for name in GOOGLE:
        monkeypatch.setitem(sys.modules, name, MagicMock(errors=errors))
    monkeypatch.setitem(sys.modules, "googleapiclient.errors", errors)
    for name in ("gcp.node", "gcp.config"):  # not those that were imported with other libraries
        monkeypatch.delitem(sys.modules, f"ray.autoscaler._private.{name}", raising=False)
    found = importlib.import_module("ray.autoscaler._private.gcp.config")
    monkeypatch.delitem(sys.modules, found.__name__)
    monkeypatch.delitem(sys.modules, "ray.autoscaler._private.gcp.node")
    return found


def words(gcp: ModuleType) -> str:
    """The account's address in our project."""
    project = read("gcp")["provider"]["project_id"]
    account = gcp.DEFAULT_SERVICE_ACCOUNT_ID
    return gcp.SERVICE_ACCOUNT_EMAIL_TEMPLATE.format(account_id=account, project_id=project)


def ask(gcp: ModuleType, there: bool, roles: list[str]) -> tuple[MagicMock, MagicMock, Any]:
    """What ``ray up`` does about accounts, where Ray's is there or not, with some of its roles."""
    crm, iam, email = MagicMock(), MagicMock(), words(gcp)
    accounts, projects = iam.projects().serviceAccounts(), crm.projects()
    own = {"email": email, "projectId": "p", "disabled": True}
    accounts.get().execute.side_effect = [own] if there else [HttpError(404)]
    accounts.create().execute.return_value = own
    members = [f"serviceAccount:{email}"]
    policy = {"bindings": [{"role": role, "members": list(members)} for role in roles]}
    projects.getIamPolicy().execute.return_value = policy
    accounts.create.reset_mock()
    projects.setIamPolicy.reset_mock()
    made = gcp._configure_iam_role(read("gcp") | {"head_node": {}}, crm, iam)
    return accounts.create, projects.setIamPolicy, made


def test_ray_makes_the_account_and_gives_it_its_roles(gcp: ModuleType) -> None:
    create, give, _ = ask(gcp, there=False, roles=[])
    assert create.called
    assert give.called


def test_what_an_admin_has_made_is_left_alone(gcp: ModuleType) -> None:
    """As the page's commands make it: with these roles, disabled."""
    create, give, made = ask(gcp, there=True, roles=told()[1])
    assert not create.called
    assert not give.called
    # It is for heads that have no account of their own.
    own = read("gcp")["available_node_types"]["head"]["node_config"]
    account = (made["head_node"] | own)["serviceAccounts"][0]["email"]
    assert account == "REPLACE-HEAD-ACCOUNT@REPLACE-PROJECT.iam.gserviceaccount.com"


@pytest.mark.parametrize("number", range(4))
def test_every_role_that_is_told_is_needed(gcp: ModuleType, number: int) -> None:
    roles = told()[1]
    assert len(roles) == 4
    _, give, _ = ask(gcp, there=True, roles=[*roles[:number], *roles[number + 1 :]])
    assert give.called


def told() -> tuple[list[str], list[str]]:
    """The accounts that the page has an admin make and disable, and the roles they are given."""
    page = (ROOT / "cluster" / "README.md").read_text()
    section = page[page.index("## Google Cloud") : page.index("## Kubernetes")]
    found = re.search(r"^for role in (.*); do$", section, re.MULTILINE)
    accounts = re.findall(r"service-accounts (?:create|disable) (\S+)", section)
    return accounts, [f"roles/{role}" for role in found[1].split()] if found else []


def test_the_page_tells_the_account_and_what_is_needed_here(gcp: ModuleType) -> None:
    assert told() == (
        [gcp.DEFAULT_SERVICE_ACCOUNT_ID, words(gcp)],
        gcp.DEFAULT_SERVICE_ACCOUNT_ROLES,
    )
