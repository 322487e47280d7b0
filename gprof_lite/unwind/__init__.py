"""Tables by which a stack can be unwound without frame pointers: made from call frame information, for the kernel."""
