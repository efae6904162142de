# A guest that goes through the modes and transfers of i386 processors and tells port 0xe9 what it sees; the same bytes
# come out of every processor that follows the manual. It begins as a multiboot kernel does, and ends by port 0xf4.
	.set KCODE, 0x08; .set KDATA, 0x10; .set UCODE, 0x1b; .set UDATA, 0x23; .set TSS, 0x28; .set TSS2, 0x30
	.set GATE3, 0x3b; .set ABSENT, 0x40; .set CODE16, 0x48; .set DATA16, 0x50; .set LDTSEL, 0x58; .set TASKGATE, 0x60
	.set CONFORM, 0x68; .set EXECONLY, 0x70; .set READONLY, 0x78; .set TSSDF, 0x80
	.macro base selector, address
	movl $\address, %eax
	movw %ax, gdt + \selector + 2
	shrl $16, %eax
	movb %al, gdt + \selector + 4
	movb %ah, gdt + \selector + 7
	.endm
	.text
	.globl _start
	.align 4
	.long 0x1badb002, 0x10000, -(0x1badb002 + 0x10000)
	.long header, header, edata, bssend, _start
	.set header, 0x100000
_start:	cli
	movb $0xff, %al; outb %al, $0x21; outb %al, $0xa1	# no interrupts from outside
	movl $stack, %esp
	base TSS, tss
	base TSS2, tss2
	base TSSDF, tssdf
	base CODE16, base16
	base LDTSEL, ldt
	movl $gate_entry, %eax
	movw %ax, gdt + 0x38
	shrl $16, %eax
	movw %ax, gdt + 0x3e
	lgdt gdtr
	ljmp $KCODE, $1f
1:	movl $KDATA, %eax
	movl %eax, %ds; movl %eax, %es; movl %eax, %fs; movl %eax, %gs; movl %eax, %ss
	# gates to the stubs of all vectors, of which 0x80 and 3 are for everybody
	xorl %ecx, %ecx
2:	movl %ecx, %eax
	shll $4, %eax
	addl $stubs, %eax
	movl %eax, %edx
	andl $0xffff, %eax
	orl $(KCODE << 16), %eax
	movl %eax, idt(,%ecx,8)
	movw $0x8e00, %dx
	cmpl $3, %ecx
	je 3f
	cmpl $0x80, %ecx
	je 3f
	cmpl $0x7f, %ecx
	jne 4f
3:	movw $0xef00, %dx
4:	movl %edx, idt+4(,%ecx,8)
	incl %ecx
	cmpl $256, %ecx
	jne 2b
	movl $(TASKGATE << 16), idt+8*0x41		# not a gate's type: #GP
	movl $(TSS2 << 16), idt+8*0x42			# a task gate
	movl $0x8500, idt+8*0x42+4
	movl $(TSSDF << 16), idt+8*8
	movl $0x8500, idt+8*8+4
	movl $0x8500, idt+8*8+4
	lidt idtr
	movw $TSS, %ax
	ltr %ax
	# 1: faults and software interrupts at ring 0
	movb $'1', %al; out %al, $0xe9
	movl $1f, resume; xorl %ecx, %ecx; divl %ecx
1:	movl $1f, resume; ud2
1:	movl $1f, resume; int3
1:	movl $1f, resume; int $0x80
1:	movl $1f, resume; movb $0x7f, %al; addb $1, %al; into
1:	movl $1f, resume; movl $9, %eax; bound %eax, bounds
1:	movl $1f, resume; int $0x41
1:	movl $1f, resume; movl $0xffff, %eax; movl %eax, %ds
1:	movl $1f, resume; movl $ABSENT, %eax; movl %eax, %es
1:	movl $1f, resume; movl $ABSENT, %eax; movl %eax, %ss
1:	movl $1f, resume; movl $UDATA, %eax; movl %eax, %ss
1:	movl $1f, resume; movl $EXECONLY, %eax; movl %eax, %fs
1:	movl $1f, resume; movl $READONLY, %eax; movl %eax, %fs; call dsel
	movl $1f, resume; xorl %eax, %eax; movl %eax, %ss
1:	movl $1f, resume; ljmp $0, $0
1:	movl $1f, resume; ljmp $KDATA, $0
1:	movl $1f, resume; ljmp $ABSENT, $0
1:	movl $1f, resume; lcall $UCODE, $0
1:	movl $1f, resume; lcall $TSS, $0			# busy
1:	movl $1f, resume; ltr_bad: movw $TSS, %ax; ltr %ax
1:	movl $1f, resume; movw $KDATA, %ax; lldt %ax
1:
	# 2: LAR, LSL, VERR, VERW, ARPL, SLDT, STR, SMSW, SGDT
	movb $'2', %al; out %al, $0xe9
	xorl %esi, %esi
5:	movl $0x12345678, %eax
	larl %esi, %eax
	call dflags
	movl $0x12345678, %eax
	lsll %esi, %eax
	call dflags
	xorl %eax, %eax
	verr %si; call dflags
	verw %si; call dflags
	addl $8, %esi
	cmpl $0xa0, %esi
	jne 5b
	movl $0x13, %eax; movl $2, %edx; arpl %dx, %ax; call dflags
	movl $0x10, %eax; movl $2, %edx; arpl %dx, %ax; call dflags
	str %eax; call dword_out
	movw $LDTSEL, %ax; lldt %ax
	xorl %eax, %eax; sldt %ax; call dword_out
	movl $4, %eax; movl %eax, %fs; call dsel			# the first of the LDT
	movl $1f, resume; movl $0x14, %eax; movl %eax, %fs		# beyond it
1:	smsw %eax; andl $0xffff, %eax; call dword_out
	sgdt scratch; movl scratch, %eax; call dword_out
	# 3: far calls at one level, conforming code, 16 bits
	movb $'3', %al; out %al, $0xe9
	lcall $KCODE, $far_same
	lcall $CONFORM, $far_same
	movl %esp, %ebx
	lcall $CODE16, $(code16 - base16)
	cmpl %esp, %ebx
	sete %al; movzbl %al, %eax; call dword_out
	# 4: ring 3 by IRET; a call gate with two parameters; faults there
	movb $'4', %al; out %al, $0xe9
	movl $ring0, resume
	movl %esp, saved
	pushl $UDATA; pushl $ustack; pushl $0x3202; pushl $UCODE; pushl $user
	movl $UDATA, %eax; movl %eax, %ds; movl %eax, %es
	iret
user:	movl %cs, %eax; call dword_out
	movl %ss, %eax; call dword_out
	pushf; popl %eax; call dword_out
	pushl $0x11111111; pushl $0x22222222
	lcall $GATE3, $0
	movl %esp, %eax; call dword_out
	movl %fs, %eax; call dword_out
	movl $1f, resume3; int $0x30				# a gate of ring 0's: #GP
1:	movl $1f, resume3; int $0x80
1:	movl $1f, resume3; hlt
1:	movl $1f, resume3; movl %cr0, %eax
1:	movl $1f, resume3; movl $KDATA, %eax; movl %eax, %es
1:	movl $1f, resume3; ljmp $KCODE, $0
1:	movl $1f, resume3; movw $TSS, %ax; ltr %ax
1:	pushl $0x2; popf; pushf; popl %eax; call dword_out		# with IOPL 3 the flag changes, IOPL does not
	movl $1f, resume3; cli
1:	movl $ring0b, resume3; int $0x81
ring0b:	movl $1f, resume; movl $1f, resume3; int $0x7f
1:	# back at ring 0 by vector 0x7f, which returns to `resume0`
	movb $'U', %al; out %al, $0xe9
ring0:
	jmp ring0
resume0:
	movl $KDATA, %eax; movl %eax, %ds; movl %eax, %es; movl %eax, %fs; movl %eax, %gs
	movl saved, %esp
	# 5: ring 3 below the I/O privilege: the map of ports
	movb $'5', %al; out %al, $0xe9
	movl $resume1, after
	pushl $UDATA; pushl $ustack; pushl $0x202; pushl $UCODE; pushl $user2
	iret
user2:	movl $UDATA, %eax; movl %eax, %ds
	movl $1f, resume3; cli
1:	movl $1f, resume3; inb $0x80, %al
1:	movl $1f, resume3; outb %al, $0xe9
1:	movl $1f, resume3; outw %ax, $0xdf
1:	pushf; popl %eax; orl $0x3000, %eax; pushl %eax; popf; pushf; popl %eax
	movl %eax, %esi
	int $0x7f
resume1:
	movl $KDATA, %eax; movl %eax, %ds; movl %eax, %es; movl %eax, %fs; movl %eax, %gs
	movl saved, %esp
	movl %esi, %eax; call dword_out
	# 6: paging
	movb $'6', %al; out %al, $0xe9
	movl $table, %eax; orl $7, %eax; movl %eax, dir
	xorl %ecx, %ecx
1:	movl %ecx, %eax; shll $12, %eax; orl $7, %eax; movl %eax, table(,%ecx,4)
	incl %ecx; cmpl $1024, %ecx; jne 1b
	movl $0x87, dir+4						# 4 MiB at 4 MiB: physical 0
	movl $0x05, table+4*0x300					# read only
	movl $0x03, table+4*0x301					# supervisor
	movl $0x00, table+4*0x302
	movl $dir, %eax; movl %eax, %cr3
	movl %cr4, %eax; orl $0x10, %eax; movl %eax, %cr4
	movl %cr0, %eax; orl $0x80000000, %eax; movl %eax, %cr0
	jmp 1f
1:	movl 0x500000 + magic - 0x100000, %eax; call dword_out
	movl dir+4, %eax; call dword_out				# accessed
	movl %eax, 0x400000 + scratch; movl dir+4, %eax; call dword_out	# and dirty
	movl $1f, resume; movl 0x302000, %eax
1:	movl $1f, resume; movl %eax, 0x302ffe
1:	movl $1f, resume; movl %eax, 0x2ffffe				# across pages into a read-only one: allowed without WP
1:	movl table+4*0x300, %eax; call dword_out
	movl %cr0, %eax; orl $0x10000, %eax; movl %eax, %cr0
	movl $1f, resume; movl %eax, 0x300000
1:	movl $1f, resume; addl $1, 0x300004
1:	movl $1f, resume; movl $0x302000, %eax; jmp *%eax
1:	movl table+4*0x301, %eax; call dword_out
	movl $resume2, after
	movl %esp, saved
	pushl $UDATA; pushl $ustack; pushl $0x3202; pushl $UCODE; pushl $user3
	iret
user3:	movl $UDATA, %eax; movl %eax, %ds
	movl $1f, resume3; movl 0x301000, %eax
1:	movl $1f, resume3; movl %eax, 0x300000
1:	movl $1f, resume3; pushl 0x302000
1:	movl $1f, resume3; movl $0x301000, %eax; jmp *%eax
1:	int $0x7f
resume2:
	movl $KDATA, %eax; movl %eax, %ds; movl %eax, %es; movl %eax, %fs; movl %eax, %gs
	movl saved, %esp
	# 7: tasks: a call that returns by IRET, a task gate, a double fault
	movb $'7', %al; out %al, $0xe9
	movl $0x1234, %ebx
	lcall $TSS2, $0
	movl %ebx, %eax; call dword_out
	pushf; popl %eax; call dword_out
	str %eax; call dword_out
	movl %cr0, %eax; andl $8, %eax; call dword_out; clts
	int $0x42
	lcall $TASKGATE, $0
	movl gdt+TSS2+4, %eax; call dword_out
	# a stack that is not there: #PF, which cannot be pushed: #DF, by its task
	movl %esp, saved
	movl $after_df, df_return
	movl $0x303000, %esp
	movl $0, table+4*0x302
	invlpg 0x302000
	pushl %eax
after_df:
	movl saved, %esp
	movb $'d', %al; out %al, $0xe9
	# 8: virtual-8086 mode
	movb $'8', %al; out %al, $0xe9
	movl $resume4, after
	movl $v86_end - v86_code, %ecx
	movl $v86_code, %esi
	movl $0x20000, %edi
	cld
	rep movsb
	movl %esp, saved
	pushl $0x1111; pushl $0x2222; pushl $0x3333; pushl $0x4444; pushl $0x3000; pushl $0xfff0; pushl $0x20202; pushl $0x2000; pushl $0
	iret
resume4:
	movl $KDATA, %eax; movl %eax, %ds; movl %eax, %es; movl %eax, %fs; movl %eax, %gs
	movl saved, %esp
	# 9: SYSENTER and SYSEXIT
	movb $'9', %al; out %al, $0xe9
	xorl %edx, %edx
	movl $0x174, %ecx; movl $KCODE, %eax; wrmsr
	movl $0x175, %ecx; movl $sysstack, %eax; wrmsr
	movl $0x176, %ecx; movl $sysentry, %eax; wrmsr
	movl $resume5, after
	movl %esp, saved
	pushl $UDATA; pushl $ustack; pushl $0x202; pushl $UCODE; pushl $user4
	iret
user4:	sysenter
user5:	movl %cs, %eax; movl %ss, %ebx; movl %esp, %edx
	int $0x7f
sysentry:
	movl %cs, %eax; call dword_out
	movl %ss, %eax; call dword_out
	pushf; popl %eax; call dword_out
	movl $ustack, %ecx; movl $user5, %edx
	sysexit
resume5:
	pushl %eax
	movl $KDATA, %eax; movl %eax, %ds; movl %eax, %es; movl %eax, %fs; movl %eax, %gs
	popl %eax; call dword_out
	movl %ebx, %eax; call dword_out
	movl %edx, %eax; call dword_out
	movl saved, %esp
	# 10: single steps
	movb $'a', %al; out %al, $0xe9
	movl $0, resume
	pushf; orl $0x100, (%esp); popf
	nop
	movl $5, %eax
	pushf; andl $~0x100, (%esp); popf
	nop
	# the end
	movb $'\n', %al; out %al, $0xe9
	movb $0, %al; out %al, $0xf4
1:	hlt; jmp 1b

far_same:
	movl %cs, %eax; call dword_out
	lret
dsel:	movl %fs, %eax
	jmp dword_out
dflags:	pushf
	call dword_out
	popl %eax
	andl $0x40, %eax
# the number in EAX to port 0xe9; changes nothing
dword_out:
	pushf; pushl %eax; pushl %ecx; pushl %edx
	movl %eax, %edx
	movl $8, %ecx
1:	roll $4, %edx
	movb %dl, %al
	andb $15, %al
	addb $'0', %al
	cmpb $'9', %al
	jbe 2f
	addb $39, %al
2:	outb %al, $0xe9
	loop 1b
	movb $' ', %al; outb %al, $0xe9
	popl %edx; popl %ecx; popl %eax; popf
	ret

gate_entry:	# parameters behind EIP and CS: the second first
	movl 8(%esp), %eax; call dword_out
	movl 12(%esp), %eax; call dword_out
	movl 16(%esp), %eax; call dword_out
	movl 20(%esp), %eax; call dword_out
	lret $8

# every vector: 16 bytes of stub push the number (and a 0 where the processor pushes no code) and go on in `common`
	.align 16
stubs:
	.set vector, 0
	.rept 256
	.align 16
	.if (vector == 8) | (vector == 10) | (vector == 11) | (vector == 12) | (vector == 13) | (vector == 14) | (vector == 17)
	.else
	pushl $0
	.endif
	pushl $vector
	jmp common
	.set vector, vector + 1
	.endr
common:
	cld
	pushl %eax; pushl %ecx
	movl %ss:8(%esp), %ecx
	movl $KDATA, %eax; movl %eax, %ds; movl %eax, %es
	cmpl $0x7f, %ecx
	je leave_ring3
	movb $'<', %al; outb %al, $0xe9
	movl 8(%esp), %eax; call dword_out		# vector
	movl 12(%esp), %eax; call dword_out		# code
	movl 16(%esp), %eax; call dword_out		# EIP
	movl 20(%esp), %eax; call dword_out		# CS
	movl 24(%esp), %eax; andl $0x27702, %eax; call dword_out
	cmpl $14, %ecx
	jne 1f
	movl %cr2, %eax; call dword_out
1:	movb $'>', %al; outb %al, $0xe9
	cmpl $13, %ecx
	jne 2f
	testl $0x20000, 24(%esp)
	jnz v86_fault
2:	cmpl $1, %ecx
	je 4f
	movl resume, %eax
	testl $3, 20(%esp)
	jz 3f
	movl $UDATA, %eax; movl %eax, %ds; movl %eax, %es
	movl resume3, %eax
3:	movl %eax, 16(%esp)
4:	popl %ecx; popl %eax
	addl $8, %esp
	iret
leave_ring3:
	popl %ecx; popl %eax
	movl %ss:after, %ecx
	jmp *%ecx
# a fault of virtual-8086 mode: its instruction is skipped, whose length is in AH; AH 0 ends
v86_fault:
	movl 4(%esp), %eax		# the guest's EAX
	shrl $8, %eax
	andl $0xff, %eax
	jz 1f
	addl %eax, 16(%esp)
	popl %ecx; popl %eax
	addl $8, %esp
	iret
1:	movl 44(%esp), %eax; call dword_out		# ES, DS, FS, GS as they were pushed
	movl 36(%esp), %eax; call dword_out
	movl 40(%esp), %eax; call dword_out
	movl 48(%esp), %eax; call dword_out
	movl 32(%esp), %eax; call dword_out
	jmp *after

	.code16
v86_code:
	movw %cs, %ax; pushw %ax; popw %bx
	movw $0x4567, %bx
	movw %bx, %es
	movw %bx, %es:0x10
	movb $2, %ah
	int $0x21
	movb $1, %ah
	cli
	hlt
	pushfw
	sti
	movb $2, %ah
	inb $0x80, %al
	movb $0, %ah
	hlt
v86_end:
base16:
code16:	movw $0x1234, %ax
	pushw %ax
	popw %bx
	movl %esp, %edx
	callw 1f
	lretl
1:	retw
	.code32

task2:	movb $'t', %al; out %al, $0xe9
	pushf; popl %eax; call dword_out
	str %eax; call dword_out
	movl %esp, %eax; call dword_out
	movl tss2, %eax; call dword_out		# the back link
	iret
	jmp task2
double:	movb $'D', %al; out %al, $0xe9
	popl %eax; call dword_out		# the error code
	str %eax; call dword_out
	movl tssdf, %eax; call dword_out
	movl df_return, %eax
	movl %eax, tss+0x20
	iret
	jmp double

	.data
	.align 8
gdt:	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
	.word 0x68 + 8191, 0, 0x8900, 0
	.word 0x67, 0, 0x8900, 0
	.word 0, KCODE, 0xec02, 0
	.quad 0x00cf13000000ffff
	.word 0xffff, 0, 0x9b00, 0
	.quad 0x000093000000ffff
	.word 0x0f, 0, 0x8200, 0
	.word 0, TSS2, 0x8500, 0
	.quad 0x00cf9f000000ffff, 0x00cf99000000ffff, 0x00cf91000000ffff
	.word 0x67, 0, 0x8900, 0
	.quad 0, 0, 0
gdtend:
gdtr:	.word gdtend - gdt - 1
	.long gdt
idtr:	.word 256 * 8 - 1
	.long idt
ldt:	.quad 0x00cf93000000ffff, 0x00cf93000000ffff
bounds:	.long 1, 5
magic:	.long 0xfeedbeef
resume:	.long 0
resume3: .long 0
after:	.long resume0
saved:	.long 0
df_return: .long 0
scratch: .long 0, 0
tss2:	.long 0, 0, 0, 0, 0, 0, 0, dir, task2, 0x2, 1, 2, 3, 4, task2stack, 5, 6, 7
	.long KDATA, KCODE, KDATA, KDATA, KDATA, KDATA, 0, 0x00680000
tssdf:	.long 0, 0, 0, 0, 0, 0, 0, dir, double, 0x2, 1, 2, 3, 4, dfstack, 5, 6, 7
	.long KDATA, KCODE, KDATA, KDATA, KDATA, KDATA, 0, 0x00680000
tss:	.long 0, ring0stack, KDATA, 0, 0, 0, 0, dir
	.fill 17, 4, 0
	.long 0x00680000
	.fill 0x1c, 1, 0				# ports 0 to 0xdf are allowed
	.byte 0xff, 0x00				# not 0xe0 to 0xe7; and the debug port is
	.fill 8192 - 0x1e, 1, 0xff
	.align 4
edata:
	.bss
	.align 4096
dir:	.skip 4096
table:	.skip 4096
idt:	.skip 2048
	.skip 2048
	.skip 2048
stack:	.skip 2048
ring0stack: .skip 1024
ustack:	.skip 1024
sysstack: .skip 1024
task2stack: .skip 1024
dfstack:
bssend:
