"""Files of others that are read whole: they are not part of the repository, and are checked whenever they are read."""

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SourceFile:
    """A file of someone else, by its contents.

    Args:
        name: Its name.
        sha256: Digest of its contents.
        address: Where it is published.
    """

    name: str
    sha256: str
    address: str

    def find(self, folder: Path) -> Path:
        """Returns the path of the file in a folder, or in one of the folders in it.

        Raises:
            FileNotFoundError: It is not there.
            ValueError: Its contents are others.
        """
        path = next(
            (path for path in (folder / self.name, *sorted(folder.glob(f"*/{self.name}"))) if path.is_file()), None
        )
        if path is None:
            raise FileNotFoundError(f"there is no {self.name} in {folder} or its folders; get it from {self.address}")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise ValueError(
                f"{path} has the SHA-256 {found}, but {self.sha256} is expected; get it again from {self.address}"
            )
        return path
