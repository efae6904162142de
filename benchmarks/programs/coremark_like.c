/* The mix of EEMBC's CoreMark, written anew: linked lists that are searched, reversed and sorted, small matrices of
 * integers, a state machine over text, and a CRC over all results. Its figures are no CoreMark scores. */
#include <stddef.h>
#include <string.h>

#include "rounds.h"

enum { ITERATIONS = 600, NODES = 64, SIZE = 12, TEXT = 512 };

static uint16_t crc16(uint16_t crc, uint16_t value) {
    for (int i = 0; i < 16; i++, value >>= 1) {
        unsigned carry = (crc ^ value) & 1;
        crc >>= 1;
        if (carry) crc ^= 0xa001; /* CRC-16-ARC, reflected */
    }
    return crc;
}

/* Lists */

typedef struct node {
    struct node *next;
    int16_t value, index;
} Node;
static Node nodes[NODES];

static Node *reversed(Node *list) {
    Node *done = NULL;
    while (list) {
        Node *next = list->next;
        list->next = done;
        done = list;
        list = next;
    }
    return done;
}

static int by_value(const Node *a, const Node *b) { return a->value - b->value; }
static int by_index(const Node *a, const Node *b) { return a->index - b->index; }

static Node *merged(Node *a, Node *b, int (*compare)(const Node *, const Node *)) {
    Node head, *last = &head;
    while (a && b) {
        Node **smaller = compare(a, b) <= 0 ? &a : &b;
        last = last->next = *smaller;
        *smaller = (*smaller)->next;
    }
    last->next = a ? a : b;
    return head.next;
}

static Node *sorted(Node *list, int (*compare)(const Node *, const Node *)) {
    if (!list || !list->next) return list;
    Node *middle = list, *end = list->next;
    while (end && end->next) middle = middle->next, end = end->next->next;
    Node *second = middle->next;
    middle->next = NULL;
    return merged(sorted(list, compare), sorted(second, compare), compare);
}

static const Node *found(const Node *list, int value) {
    while (list && (list->value & 0xff) != value) list = list->next;
    return list;
}

static uint16_t lists(int seed) {
    uint16_t crc = 0;
    for (int i = 0; i < NODES; i++) {
        nodes[i].next = i + 1 < NODES ? &nodes[i + 1] : NULL;
        nodes[i].value = (int16_t)(seed * 31 + i * 177 ^ i << 7);
        nodes[i].index = (int16_t)i;
    }
    Node *list = nodes;
    for (int value = 0; value < 24; value++) {
        const Node *hit = found(list, value * 5 & 0xff);
        crc = crc16(crc, hit ? (uint16_t)hit->index : 0xffff);
        list = reversed(list);
    }
    list = sorted(list, by_value);
    for (const Node *at = list; at; at = at->next) crc = crc16(crc, (uint16_t)at->value);
    list = sorted(list, by_index);
    return crc16(crc, (uint16_t)list->value);
}

/* Matrices */

static uint16_t matrices(int seed) {
    int16_t a[SIZE][SIZE], b[SIZE][SIZE];
    int32_t c[SIZE][SIZE];
    uint16_t crc = 0;
    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++) {
            a[i][j] = (int16_t)(seed + i * SIZE + j);
            b[i][j] = (int16_t)(seed ^ i << 4 ^ j);
        }
    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++) {
            c[i][j] = 0;
            for (int k = 0; k < SIZE; k++) {
                int32_t product = a[i][k] * b[k][j];
                c[i][j] += (product >> 2 & 0xf) * (product >> 5 & 0x7f);
            }
            crc = crc16(crc, (uint16_t)c[i][j]);
        }
    return crc;
}

/* A state machine that tells kinds of numbers in text */

enum state { START, SIGN, INTEGER, POINT, FRACTION, EXPONENT, SCIENTIFIC, INVALID, STATES };

static enum state next(enum state state, char c) {
    int digit = c >= '0' && c <= '9';
    switch (state) {
    case START: return digit ? INTEGER : c == '+' || c == '-' ? SIGN : c == '.' ? POINT : INVALID;
    case SIGN: return digit ? INTEGER : c == '.' ? POINT : INVALID;
    case INTEGER: return digit ? INTEGER : c == '.' ? FRACTION : c == 'e' ? EXPONENT : INVALID;
    case POINT: return digit ? FRACTION : INVALID;
    case FRACTION: return digit ? FRACTION : c == 'e' ? EXPONENT : INVALID;
    case EXPONENT: return digit || c == '-' || c == '+' ? SCIENTIFIC : INVALID;
    case SCIENTIFIC: return digit ? SCIENTIFIC : INVALID;
    default: return INVALID;
    }
}

static uint16_t states(int seed) {
    static const char *const words[] = {"5012", "1234.500", "+110.700", "-.1e-7", "T0.3e-1F", "-8.3e+10", "T--", ".44"};
    char text[TEXT];
    int length = 0;
    uint16_t counts[STATES] = {0}, crc = 0;
    for (int i = 0; length < TEXT - 16; i++) {
        const char *word = words[(seed * 3 + i * 5) & 7];
        size_t size = strlen(word);
        memcpy(text + length, word, size);
        length += (int)size;
        text[length++] = ',';
    }
    if (seed & 1) text[seed % length] = 'x';
    for (int at = 0; at < length; at++) {
        enum state state = START;
        for (; at < length && text[at] != ','; at++)
            if (state != INVALID) state = next(state, text[at]);
        counts[state]++;
    }
    for (int i = 0; i < STATES; i++) crc = crc16(crc, counts[i]);
    return crc;
}

static uint64_t work(void) {
    uint16_t crc = 0;
    for (int seed = 0; seed < ITERATIONS; seed++) {
        crc = crc16(crc, lists(seed));
        crc = crc16(crc, matrices(seed));
        crc = crc16(crc, states(seed));
    }
    return crc;
}
