"""An x86-64 processor in software, which runs programs of user mode only: Unicorn, and LLVM for loops that are hot.

memory.py     the guest's address space: one reservation of the host's, never executable, with rights by page
library.py    Unicorn's library, called directly
callbacks.py  what Unicorn asks of us while it runs, as machine code of the host
stubs.py      functions of ours as the guest sees them: code of its own processor
threads.py    guest threads, which take turns
engine.py     all of that as an engine that runs a program and its calls
loops.py      loops that are hot: decoded, turned into LLVM's language, and run between two of Unicorn's blocks
"""
