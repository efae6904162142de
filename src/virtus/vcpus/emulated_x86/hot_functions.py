"""Functions that programs call all the time, as guest code: nobody is asked where nothing is contended.

They are those of the in-process engine that call neither the C library nor the host's kernel. What does not end with a
return falls through its end, where a jump to the function as others see it follows.
"""

from typing import Final

from virtus.vcpus import inprocess_hot

HOT: Final[dict[str, bytes]] = {
    name: code
    for name, code in inprocess_hot.CODE.items()
    if not inprocess_hot.calls_others(code) and name not in inprocess_hot.HOST_CALLS
}
