/* The functions of the kinds of the C simulator; table.c names them. */
#ifndef KINDS_H
#define KINDS_H

/* heap.c: leaks of one process and thread */
void step_malloc(void), step_malloc_64(void), step_malloc_1m(void), step_calloc(void), step_memalign(void);
void step_posix_memalign(void), step_aligned_alloc(void), step_reallocarray(void), step_strdup(void);
void step_asprintf(void), step_mmap(void), step_wrapper(void), also_wrapper(void);
void step_realloc_growth(void), step_failing_realloc(void), step_partial_munmap(void), step_mremap(void);
void step_sbrk(void), step_rare_steps(void), start_recycled(void), step_recycled(void);
void start_noisy(void), step_noisy(void), step_partial(void), step_partial_rare(void);
void step_error_path(void), also_error_path(void), step_late_start(void), also_late_start(void);
void step_hash_table(void), step_own_arena(void), step_sawtooth_leak(void), also_sawtooth_leak(void);
void step_beside_cache(void), also_beside_cache(void), step_bursts(void), also_bursts(void);

/* processes.c: leaks of threads, children, libraries, descriptors */
void start_threads(void), step_thread_churn(void), start_forked_child(void), step_forked_later(void);
void step_exec(void), step_dlopen(void), step_descriptors(void), step_stuck_threads(void);

/* healthy_heap.c: programs that keep memory within a bound */
void start_cache20(void), start_cache40(void), step_cache(void), start_lru(void), start_lru_slow(void);
void step_pool(void), step_interned(void), start_sessions(void), step_sessions(void), step_load_step(void);
void step_load_wave(void), step_timeouts(void), step_ring_log(void), step_sawtooth(void), step_sawtooth_slow(void);
void step_one_large(void), step_batch(void), step_batch_exit(void), step_reload(void), step_warm_up(void);
void step_vector(void), step_rehash(void), step_double_buffer(void), step_region(void);
void start_fragmentation(void), step_fragmentation(void);

/* healthy_system.c: threads, children and mappings that look like growth */
void start_arenas(void), start_queue(void), step_thread_burst(void), start_fork_cow(void);
void start_huge_pages(void), step_huge_pages(void), start_page_cache(void), step_page_cache(void);
void start_shared_memory(void), step_shared_memory(void), step_mapped_ring(void), step_mapped_halves(void);
void start_thread_caches(void), step_many_descriptors(void);

#endif
