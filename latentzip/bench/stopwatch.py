"""`python -m latentzip.bench.stopwatch COMMAND...`: run it, and print its seconds, peak memory and exit code as JSON.

A process of its own, and a small one: Linux counts the memory of the process that starts another as that one's peak.
"""

import json
import os
import subprocess
import sys
import time


def main() -> None:
    start = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
    memory = None
    if sys.platform == "win32":
        code = process.wait()
    else:
        _, status, usage = os.wait4(process.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"seconds": time.perf_counter() - start, "memory": memory, "code": code}))


if __name__ == "__main__":
    main()
