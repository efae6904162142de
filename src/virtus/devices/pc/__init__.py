"""The chips of a PC of the PIIX3 generation, a file each; `virtus.personalities.pc.board` solders them together."""
