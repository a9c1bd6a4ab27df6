"""The model hub: fetch through its local cache, upload."""

from pathlib import Path

from incontext.errors import InputError, first_line


def fetch(repo: str, weights: str, config: str, local_files_only: bool) -> Path:
    """Fetch a repository's weights file, from the local cache or the hub.

    `config` is fetched too where the weights are safetensors; the official `.pth` has none.

    Raises:
        InputError: no such repository or file, or neither cached nor reachable.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    files = [weights, config] if weights.endswith(".safetensors") else [weights]
    try:
        cached = all(isinstance(try_to_load_from_cache(repo, file), str) for file in files)
        # A download retries an unreachable hub for half a minute: ask with a short timeout first.
        local = local_files_only or not (cached or _responds(repo, weights))
        path, *_ = [hf_hub_download(repo, file, local_files_only=local) for file in files]
        return Path(path)
    except RepositoryNotFoundError:
        raise InputError(f"the hub has no repository {repo!r} that you may read") from None
    except LocalEntryNotFoundError:  # neither cached nor reachable
        pass
    except EntryNotFoundError:
        raise InputError(f"{repo} on the hub holds no {weights} with {config}") from None
    except (OSError, ValueError, RuntimeError):
        pass
    raise InputError(
        f"{repo} is not in the local hub cache and the hub cannot be reached: on a machine with "
        f"network download {weights} of {repo}, copy it here, and pass the file's path instead"
    )


def _responds(repo: str, file: str) -> bool:
    """Return True if the hub responds to one metadata request, whatever the status."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    try:
        get_hf_file_metadata(hf_hub_url(repo, file), timeout=10)
    except HfHubHTTPError:
        return True
    except Exception:  # of the http client below, or offline by the hub client's own settings
        return False
    return True


def upload(folder: Path, repo: str, private: bool) -> str:
    """Upload a folder's files; return the repository's address.

    Raises:
        InputError: no network, or no permission to write there.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        url = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder)
    except Exception as error:  # of the hub client, and of the http client below it
        raise InputError(f"cannot upload to {repo}: {first_line(error)}") from None
    return str(url)
