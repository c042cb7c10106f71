/* What compilers and systems have beyond C99: vectors, threads, huge pages. Instruction sets are in dot_target.h, and in
 * dot_level.h, which users' ops are compiled with. */
#ifndef PLATFORM_H
#define PLATFORM_H

#if !defined(__GNUC__)
#error "im2col_compat's C library needs GCC or Clang, on Windows those of MinGW-w64"
#endif

#include <stdint.h>

/* Those elements of two vectors, one behind the other, that are numbered. type: the vectors'. */
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, type, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, type, ...) __builtin_shuffle(a, b, (type){__VA_ARGS__})
#endif

/* ---------------------------------------------------------------- threads */

/* A thread's function is defined as THREAD_FUNCTION(name, argument) { ... return THREAD_ENDS; }. thread_start() tells
 * whether there is a new thread. */
#if defined(_WIN32)
/* Its own: a library for POSIX's would have to be found wherever this one is loaded. */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

typedef HANDLE thread;
#define THREAD_FUNCTION(name, argument) static DWORD WINAPI name(LPVOID argument)
#define THREAD_ENDS 0

static inline int thread_start(thread *started, LPTHREAD_START_ROUTINE function, void *argument)
{
    return (*started = CreateThread(NULL, 0, function, argument, 0, NULL)) != NULL;
}

static inline void thread_join(thread started)
{
    WaitForSingleObject(started, INFINITE);
    CloseHandle(started);
}
#else
#include <pthread.h>

typedef pthread_t thread;
#define THREAD_FUNCTION(name, argument) static void *name(void *argument)
#define THREAD_ENDS ((void *)0)

static inline int thread_start(thread *started, void *(*function)(void *), void *argument)
{
    return pthread_create(started, (const pthread_attr_t *)0, function, argument) == 0;
}

static inline void thread_join(thread started) { pthread_join(started, (void **)0); }
#endif

/* ---------------------------------------------------------------- memory */

#if defined(__linux__)
#include <sys/mman.h>
#endif

/* Asks for huge pages, where there are any, from a start to an end that are multiples of HUGE_PAGE. */
#define HUGE_PAGE ((uintptr_t)2 << 20)

static inline void huge_pages(uintptr_t start, uintptr_t end)
{
#if defined(MADV_HUGEPAGE)
    /* Only a wish: what it returns changes nothing. */
    madvise((void *)start, end - start, MADV_HUGEPAGE);
#else
    (void)start, (void)end;
#endif
}

#endif
