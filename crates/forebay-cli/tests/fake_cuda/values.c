// 16-bit floating point in memory, f32 in arithmetic. Portable: not every compiler has the types.

#include "fake.h"

#include <math.h>
#include <string.h>

static f32 tables[2][1 << 16];
static pthread_once_t filled = PTHREAD_ONCE_INIT;

static u32 bits_of(f32 value) {
    u32 bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static f32 of_bits(u32 bits) {
    f32 value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static f32 half(u32 bits) {
    const int exponent = bits >> 10 & 31;
    const f32 fraction = (f32)(bits & 1023), sign = bits >> 15 ? -1.0f : 1.0f;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexpf(fraction, -24);
    return sign * ldexpf(1024.0f + fraction, exponent - 25);
}

static void fill(void) {
    for (u32 bits = 0; bits < 1 << 16; ++bits) {
        tables[0][bits] = half(bits);
        tables[1][bits] = of_bits(bits << 16);
    }
}

// The f32 of each 16-bit pattern.
const f32 *widening(int bf16) {
    pthread_once(&filled, fill);
    return tables[bf16];
}

// Rounds to the nearest, ties to even.
u16 narrow(f32 value, int bf16) {
    const u32 bits = bits_of(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return (u16)(bf16 ? 0x7fff : sign | 0x7e00);
    if (bf16) return (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    if (magnitude >= 0x477ff000) return (u16)(sign | 0x7c00);
    // Below the smallest normal number the last place is worth 2^-24.
    if (magnitude < 0x38800000) {
        return (u16)(sign | (u32)nearbyintf(of_bits(magnitude) * 16777216.0f));
    }
    return (u16)(sign | (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13);
}
