/* Threads: atomics, a lock, a condition, thread-local storage, what a thread returns. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 4, ROUNDS = 20000 };
static atomic_long counter, exchanged;
static atomic_int small;
static long locked, handed;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_changed = PTHREAD_COND_INITIALIZER;
static int turn;
static __thread long own = 7;

static void *run(void *argument) {
    long number = (long)argument;
    for (long i = 0; i < ROUNDS; i++) {
        atomic_fetch_add(&counter, number + 1);
        atomic_fetch_xor(&small, 1);
        long seen = atomic_load(&exchanged);
        while (!atomic_compare_exchange_weak(&exchanged, &seen, seen + 3)) {
        }
        own += 1;
        if (i % 16 == 0) {
            pthread_mutex_lock(&lock);
            locked++;
            pthread_mutex_unlock(&lock);
        }
    }
    pthread_mutex_lock(&lock); /* one after the other, in order */
    while (turn != number) pthread_cond_wait(&turn_changed, &lock);
    handed = handed * 10 + number;
    turn++;
    pthread_cond_broadcast(&turn_changed);
    pthread_mutex_unlock(&lock);
    return (void *)own;
}

int main(void) {
    pthread_t threads[THREADS];
    long owns = 0;
    for (long i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, run, (void *)i)) return 1;
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        owns += (long)result;
    }
    printf("counter %ld, exchanged %ld, small %d\n", counter, exchanged, small);
    printf("locked %ld, handed %ld, own %ld and %ld\n", locked, handed, owns, own);
    return 0;
}
