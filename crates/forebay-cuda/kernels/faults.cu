// Kernels that break on purpose, for tests and drills. They are loaded only where faults are enabled.
//
// Written as instructions, because in C++ each of them would be something that a compiler may assume
// never to happen. One thread does it: what follows is the driver's affair.

// Stops the device's context with a trap.
extern "C" __global__ void fault_trap() { asm volatile("trap;"); }

// Writes to an address that the host says, which must be none of the device's.
extern "C" __global__ void fault_illegal_address(u32* address) {
    asm volatile("st.global.u32 [%0], %1;" ::"l"(address), "r"(0u) : "memory");
}

// Never ends. It sleeps most of the time, as one thread need not heat the device.
extern "C" __global__ void fault_endless() {
    for (;;) asm volatile("nanosleep.u32 1000000;" ::: "memory");
}
