"""Install oidc-provider with npm into the directory that is given, if the machine has npm."""

import shutil
import subprocess
import sys

npm = shutil.which("npm")
if npm is None:
    print("npm is not here: the tests of oidc-provider are skipped")  # noqa: T201
else:
    packages = ["oidc-provider@^9.5.0"]
    subprocess.run([npm, "install", "--silent", "--prefix", sys.argv[1], *packages], check=True)
