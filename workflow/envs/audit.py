"""Ask PyPI whether a version in requirements.lock has a known vulnerability (see `make audit`).

Ends with 1 where one has, and with 2 where nothing, or not everything, could be looked up: that is no clean bill.
"""

import json
import subprocess
import sys

COMMAND = [sys.executable, "-m", "pip_audit", "-r", "requirements.lock", "--no-deps", "--disable-pip", "-f", "json"]
done = subprocess.run([*COMMAND, "--progress-spinner", "off"], capture_output=True, text=True)  # no shell  # nosec B603
try:
    found = json.loads(done.stdout)["dependencies"]
except (ValueError, KeyError):
    last = done.stderr.strip().splitlines()[-1:] or ["pip-audit said nothing"]
    print(f"Nothing was looked up: {last[0]}")
    sys.exit(2)
unknown = [package["name"] for package in found if "skip_reason" in package]
bad = [package for package in found if package.get("vulns")]
for package in bad:
    for each in package["vulns"]:
        fixed = ", ".join(each["fix_versions"]) or "no version"
        print(f"{package['name']} {package['version']}: {each['id']}, fixed in {fixed}")
print(f"{len(found) - len(unknown)} of {len(found)} versions looked up, {len(bad)} with a known vulnerability")
if unknown:
    print(f"not found in PyPI's database: {', '.join(unknown)}")
sys.exit(1 if bad else 2 if unknown else 0)
