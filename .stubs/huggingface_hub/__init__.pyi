# What towers calls; the package itself need not be installed where types are checked.

from os import PathLike

class RepoUrl(str):
    repo_id: str

class CommitInfo(str): ...

class HfApi:
    def __init__(self, *, token: str | bool | None = None) -> None: ...
    def create_repo(self, repo_id: str, *, private: bool | None = None, exist_ok: bool = False) -> RepoUrl: ...
    def upload_folder(
        self,
        *,
        repo_id: str,
        folder_path: str | PathLike[str],
        commit_message: str | None = None,
        revision: str | None = None,
        create_pr: bool | None = None,
        delete_patterns: list[str] | str | None = None,
    ) -> CommitInfo: ...

def snapshot_download(
    repo_id: str,
    *,
    revision: str | None = None,
    cache_dir: str | PathLike[str] | None = None,
    force_download: bool = False,
    token: str | bool | None = None,
    local_files_only: bool = False,
    allow_patterns: list[str] | str | None = None,
) -> str: ...
