.text
.globl first
.type first,@function
first: nop
nop
ret
.size first,.-first
.zero 64
.globl nosize
.type nosize,@function
nosize: nop
ret
.zero 64
.globl notype
notype: nop
 ret
.zero 32
.type _start,@function
.globl _start
_start: ret
.size _start,.-_start
.type localf,@function
localf: nop
ret
.size localf,.-localf
.zero 32
