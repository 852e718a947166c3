"""Delete the repositories of models from the Hub."""

import os
from collections.abc import Sequence

from huggingtweets.errors import PublishError
from huggingtweets.logs import redact

_TIMEOUT_S = 60.0


def delete_repositories(slugs: Sequence[tuple[str | None, str]]) -> list[str]:
    """Delete the repositories there are of these names; return their ids.

    Args:
        slugs: organisation (None: the token's owner) and name of each.

    Raises:
        PublishError: there is no token, or the Hub refuses or does not answer; some may be deleted.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    from huggingtweets.publishing.upload import bound_requests, transport_error

    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    if not token:
        raise PublishError(
            "purge --hub: got no token; expected one that may delete repositories; set HF_TOKEN"
        )
    bound_requests(_TIMEOUT_S)
    deleted = []
    try:
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
        owner = api.whoami()["name"] if any(org is None for org, _ in slugs) else ""
        for org, slug in slugs:
            repo_id = f"{org or owner}/{slug}"
            if api.repo_exists(repo_id):
                api.delete_repo(repo_id)
                deleted.append(repo_id)
    except (HfHubHTTPError, transport_error()) as err:
        said = " ".join(redact(str(err)).split())[:200]
        raise PublishError(
            f"purge --hub: the Hub did not delete the repositories ({said}); expected it to; "
            "delete them on its page, or run the command again"
        ) from err
    return deleted
