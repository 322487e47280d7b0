module memory_leak_simulator

go 1.21
