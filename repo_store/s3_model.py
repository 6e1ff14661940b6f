"""The session of botocore, and the descriptions of the service that it reads: most of what making a client takes.

A description is read once a process and shared by all sessions. And it is not searched for: botocore looks into each of
the 400 services it knows to list those that have a description of a kind, only to see that S3 is among them.
"""

import os
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from botocore.session import Session


def new_session() -> "Session":
    """Return a session that looks for its settings and credentials anew."""
    from botocore.session import Session

    session = Session()
    session.register_component("data_loader", shared_loader(session.get_config_variable("data_path")))
    return session


@cache
def shared_loader(data_path: str | None = None) -> Any:
    """Return what reads descriptions of services: those of botocore, and those in `data_path` (AWS_DATA_PATH)."""
    from botocore.loaders import Loader

    class QuickLoader(Loader):
        """A loader to which every folder is a service: one that is none is found out when it is read."""

        def list_available_services(self, type_name: str) -> list[str]:
            """Return the names of all services, whatever kinds of description they have."""
            found: set[str] = set()
            for path in self.search_paths:
                if os.path.isdir(path):
                    found.update(os.listdir(path))
            return sorted(found)

    extra = (
        [os.path.expanduser(os.path.expandvars(each)) for each in data_path.split(os.pathsep)]
        if data_path
        else []
    )
    return QuickLoader(extra_search_paths=extra)
