"""Writes a zip again so that its bytes depend on nothing but its contents.

The packer puts the time of packing, and the order in which a set happened to be walked, into what it makes. Here files
are sorted, dated by SOURCE_DATE_EPOCH, and the list of commands in module.json is sorted by name.
"""

import json
import os
import sys
import time
import zipfile


def main(source, target):
    date = time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"]))[:6]
    with zipfile.ZipFile(source) as packed, zipfile.ZipFile(target, "w") as out:
        for name in sorted(packed.namelist()):
            content = packed.read(name)
            if name == "module.json":
                metadata = json.loads(content)
                metadata["commands"].sort(key=lambda command: command["command_name"])
                for command in metadata["commands"]:
                    command["flags"].sort()
                content = json.dumps(metadata, indent=4, sort_keys=True).encode()
            entry = zipfile.ZipInfo(name, date)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(entry, content)


main(*sys.argv[1:])
