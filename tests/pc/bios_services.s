# A boot sector that uses what a BIOS offers: video, disk, time, keyboard, power (interrupts 10h, 13h, 1Ah, 16h, 15h).
.code16
.globl _start
_start:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    mov %dl, drive
    mov $first, %si
    call print
    mov $0x0201, %ax            # read sector 2 of track 0
    mov $0x0002, %cx
    mov $0, %dh
    mov drive, %dl
    mov $0x8000, %bx
    int $0x13
    jc failed
    mov $0x8000, %si
    call print
    mov $0, %ah                 # wait for the clock to tick
    int $0x1a
    mov %dx, %bx
tick:
    mov $0, %ah
    int $0x1a
    cmp %bx, %dx
    je tick
    mov $ticked, %si
    call print
    mov $0, %ah                 # a key, shown
    int $0x16
    mov $0x0e, %ah
    xor %bx, %bx
    int $0x10
    mov $0x5301, %ax            # APM: connect, version 1.2, off
    xor %bx, %bx
    int $0x15
    mov $0x530e, %ax
    xor %bx, %bx
    mov $0x0102, %cx
    int $0x15
    mov $0x5307, %ax
    mov $1, %bx
    mov $3, %cx
    int $0x15
failed:
    mov $error, %si
    call print
stop:
    hlt
    jmp stop
print:
    lodsb
    or %al, %al
    jz done
    mov $0x0e, %ah
    xor %bx, %bx
    int $0x10
    jmp print
done:
    ret
drive: .byte 0
first: .asciz "sector one\r\n"
ticked: .asciz "ticked\r\n"
error: .asciz "failed\r\n"
.org 510
.word 0xaa55
.asciz "sector two\r\n"
.org 1023
.byte 0
