/* For the interpreter by itself: integers, memory, calls and branches without a library; ends by asking the system. */
#include <stdint.h>

enum { SIZE = 256, ROUNDS = 40 };
static uint32_t numbers[SIZE];

__attribute__((noinline)) static uint32_t crc32(uint32_t crc, const uint8_t *bytes, unsigned size) {
    for (unsigned i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0xedb88320 & -(crc & 1)); /* IEEE 802.3 */
    }
    return crc;
}

__attribute__((noinline)) static void sort(uint32_t *array, long low, long high) {
    while (low < high) {
        uint32_t pivot = array[(low + high) / 2];
        long left = low, right = high;
        while (left <= right) {
            while (array[left] < pivot) left++;
            while (array[right] > pivot) right--;
            if (left <= right) {
                uint32_t other = array[left];
                array[left++] = array[right];
                array[right--] = other;
            }
        }
        sort(array, low, right);
        low = left;
    }
}

__attribute__((used)) static uint32_t work(void) {
    uint32_t crc = ~0u;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < SIZE; i++) numbers[i] = (i + round) * 2654435761u >> 7;
        sort(numbers, 0, SIZE - 1);
        crc = crc32(crc, (const uint8_t *)numbers, sizeof numbers / 4);
    }
    return crc;
}

__attribute__((naked)) void _start(void) { __asm__("call work\n ecall\n"); }
