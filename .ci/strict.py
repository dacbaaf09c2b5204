"""Counts the errors of pyright's strict mode in dwp_init, and fails if there are more than allowed.

python .ci/strict.py 60
"""

import json
import subprocess
import sys
from pathlib import Path


def main(most: int) -> int:
    project = Path(__file__).with_name("pyright-strict.json")
    command = [sys.executable, "-m", "pyright", "--project", str(project), "--outputjson"]
    report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)
    count, files = report["summary"]["errorCount"], report["summary"]["filesAnalyzed"]
    print(f"pyright, strict: {count} errors in {files} files of dwp_init; at most {most} are allowed")
    for found in report["generalDiagnostics"] if count > most else []:
        print(f"{found['file']}:{found['range']['start']['line'] + 1}: {found['message']} ({found.get('rule', '')})")
    return 0 if files and count <= most else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
