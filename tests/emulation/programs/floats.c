/* Floating point to the bit: rounding modes, flags, conversions, the special values. */
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static uint64_t bits(double value) {
    uint64_t result;
    memcpy(&result, &value, sizeof result);
    return result;
}
static uint32_t bits32(float value) {
    uint32_t result;
    memcpy(&result, &value, sizeof result);
    return result;
}
static volatile double zero, one = 1, three = 3, huge = 1e308, tiny = 5e-324;
static volatile int64_t most = INT64_MAX;
static volatile float zero32, one32 = 1, three32 = 3, huge32 = 3e38f;

static void flags(const char *what) {
    int raised = fetestexcept(FE_ALL_EXCEPT);
    printf("  %s:%s%s%s%s%s\n", what, raised & FE_INEXACT ? " inexact" : "", raised & FE_UNDERFLOW ? " underflow" : "",
           raised & FE_OVERFLOW ? " overflow" : "", raised & FE_DIVBYZERO ? " by-zero" : "",
           raised & FE_INVALID ? " invalid" : "");
    feclearexcept(FE_ALL_EXCEPT);
}

static void operations(void) {
    feclearexcept(FE_ALL_EXCEPT);
    printf("  %016lx %08x\n", bits(one / three), bits32(one32 / three32)), flags("1/3");
    printf("  %016lx %08x\n", bits(-one / three), bits32(-one32 / three32)), flags("-1/3");
    printf("  %016lx %08x\n", bits(huge * three), bits32(huge32 * three32)), flags("overflow");
    printf("  %016lx\n", bits(tiny / three)), flags("underflow");
    printf("  %016lx %08x\n", bits(sqrt(three)), bits32(sqrtf(three32))), flags("sqrt 3");
    printf("  %016lx\n", bits(fma(one / three, three, -one))), flags("fma");
    printf("  %08x\n", bits32((float)(one / three))), flags("to float");
    printf("  %016lx\n", bits((double)most)), flags("from long");
    printf("  %ld %ld %d\n", lrint(2.5 * one), lrint(-2.5 * one), (int)(2.9 * one)), flags("to integers");
    printf("  %g %g\n", nearbyint(3.5 * one), rint(-3.5 * one)), flags("to integral");
}

int main(void) {
    static const struct {
        int mode;
        const char *name;
    } modes[] = {{FE_TONEAREST, "nearest"}, {FE_TOWARDZERO, "zero"}, {FE_DOWNWARD, "down"}, {FE_UPWARD, "up"}};
    for (int i = 0; i < 4; i++) {
        fesetround(modes[i].mode);
        printf("%s %d\n", modes[i].name, fegetround() == modes[i].mode);
        operations();
    }
    fesetround(FE_TONEAREST);
    puts("special values");
    printf("  %016lx %08x\n", bits(zero / zero), bits32(zero32 / zero32)), flags("0/0");
    printf("  %016lx\n", bits(one / zero)), flags("1/0");
    printf("  %016lx\n", bits(sqrt(-one))), flags("sqrt -1");
    double infinity = one / zero, nan = zero / zero;
    feclearexcept(FE_ALL_EXCEPT);
    printf("  %016lx\n", bits(infinity - infinity)), flags("inf - inf");
    printf("  %d %d %d %d\n", nan < one, nan == nan, isless(nan, one), nan != nan), flags("comparisons");
    printf("  %016lx %016lx\n", bits(fmin(nan, one)), bits(fmax(-zero, zero))), flags("fmin, fmax");
    printf("  %016lx\n", bits(fmin(-zero, zero))), flags("fmin");
    volatile double big = 1e30, below = -1.5;
    long saturated;
    unsigned long none;
    __asm__("fcvt.l.d %0, %1, rtz" : "=r"(saturated) : "f"(big));
    __asm__("fcvt.lu.d %0, %1, rtz" : "=r"(none) : "f"(below));
    printf("  %lx %lx\n", saturated, none), flags("out of range");
    int word;
    __asm__("fcvt.w.d %0, %1, rtz" : "=r"(word) : "f"(nan));
    printf("  %x\n", word), flags("of NaN");
    uint64_t class;
    __asm__("fclass.d %0, %1" : "=r"(class) : "f"(tiny));
    printf("  %lx\n", class);
    uint64_t unboxed = 0x3ff0000012345678, boxed;
    float sum;
    __asm__("fmv.d.x ft0, %1\n fadd.s %0, ft0, ft0" : "=f"(sum) : "r"(unboxed) : "ft0");
    __asm__("fmv.x.d %0, %1" : "=r"(boxed) : "f"(sum));
    printf("  %016lx\n", boxed), flags("not boxed");
    printf("  %.17g %.9g %a %a\n", M_PI, (double)(float)M_PI, M_E, (double)1e-310);
    printf("  %.15g %.15g %.15g %.15g\n", sin(1.0), exp(1.5), pow(2.5, 3.5), log(7.0));
    return 0;
}
