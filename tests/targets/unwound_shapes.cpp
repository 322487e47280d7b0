// Allocates, and touches new pages, at the end of stacks of every shape that code without frame pointers makes, and says
// what the stack was: as the unwinder of its own compiler's library sees it.
//
// Reads lines "shape n" from stdin. Answers with one line for each stack, "address address ...", the frames outside of
// leaf(), hexadecimal, and then ".".
#include <alloca.h>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <execinfo.h>
#include <pthread.h>
#include <set>
#include <string>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

#define OPAQUE __attribute__((noinline, noclone))
#define NO_TAIL_CALL __asm__ volatile("" ::: "memory")

static const int DEPTH = 256;
static std::set<std::vector<void *>> stacks;
static char *pages;
static size_t n_touched;

// The one place where memory is taken. Its own frame is at another instruction each time; those outside are the truth.
OPAQUE void leaf(size_t size)
{
	static void *frames[DEPTH];
	int n = backtrace(frames, DEPTH);

	stacks.insert(std::vector<void *>(frames + 1, frames + n));
	void *volatile block = malloc(size);
	memset(block, 1, size);
	pages[4096 * n_touched++] = 1;
	void *volatile made = new char[size];
	NO_TAIL_CALL;
}

struct Base {
	virtual ~Base() {}
	virtual long descend(int n, double x, std::string s);
};

struct Derived : Base {
	long descend(int n, double x, std::string s) override;
};

OPAQUE long Base::descend(int n, double x, std::string s)
{
	Derived other;
	char local[200];

	snprintf(local, sizeof(local), "%d %f %s", n, x, s.c_str());
	if (n <= 0) {
		leaf(1000);
		return strlen(local);
	}
	return other.descend(n - 1, x * 1.5, s) + strlen(local);
}

OPAQUE long Derived::descend(int n, double x, std::string s)
{
	Base other;
	long before = n * 3 + (long)x;

	if (n <= 0) {
		leaf(1000);
		return before;
	}
	long result = other.descend(n - 1, x + before, s + "x");
	return result + before;
}

struct LeavesOnTheWay {
	int n;
	OPAQUE ~LeavesOnTheWay() { leaf(2000 + n); }
};

OPAQUE void throwing(int n)
{
	LeavesOnTheWay here{n};

	if (n == 0)
		throw std::string("up");
	throwing(n - 1);
	NO_TAIL_CALL;
}

OPAQUE void catching(int n)
{
	try {
		throwing(n);
	} catch (const std::string &) {
		leaf(3000);
	}
	leaf(3001);
	NO_TAIL_CALL;
}

static void on_signal(int) { leaf(4000); }

OPAQUE void signalled(bool elsewhere)
{
	static char other_stack[65536];
	stack_t stack = {}, none = {};
	struct sigaction action = {};

	stack.ss_sp = other_stack;
	stack.ss_size = sizeof(other_stack);
	none.ss_flags = SS_DISABLE;
	action.sa_handler = on_signal;
	action.sa_flags = elsewhere ? SA_ONSTACK : 0;
	sigaltstack(elsewhere ? &stack : &none, nullptr);
	sigaction(SIGUSR1, &action, nullptr);
	raise(SIGUSR1);
	// At an instruction, not in a call.
	action.sa_handler = [](int) {
		leaf(4100);
		mprotect(pages, 4096, PROT_READ | PROT_WRITE);
	};
	sigaction(SIGSEGV, &action, nullptr);
	mprotect(pages, 4096, PROT_NONE);
	pages[8] = 1;
	sigaltstack(&none, nullptr);
}

OPAQUE void with_alloca(int n)
{
	char *volatile local = (char *)alloca(16 + n * 100);

	local[0] = 1;
	if (n > 0)
		with_alloca(n - 1);
	else
		leaf(5000);
	NO_TAIL_CALL;
}

OPAQUE void with_aligned_frame(int n)
{
	alignas(64) volatile char local[128];
	volatile char more[n * 8 + 8];

	local[n & 63] = more[0] = 1;
	if (n > 0)
		with_aligned_frame(n - 1);
	else
		leaf(6000);
	NO_TAIL_CALL;
}

OPAQUE void jumped_to(int n)
{
	leaf(7000 + n);
	NO_TAIL_CALL;
}

OPAQUE void jumping(int n) { return jumped_to(n + 1); }

OPAQUE void before_jump(int n)
{
	jumping(n);
	NO_TAIL_CALL;
}

static ucontext_t outside, inside;

static void on_other_stack(int n)
{
	Derived().descend(n, 1.0, "c");
	swapcontext(&inside, &outside);
	Derived().descend(n + 1, 1.0, "c");
}

OPAQUE void coroutine(int n)
{
	static char stack[262144];

	getcontext(&inside);
	inside.uc_stack.ss_sp = stack;
	inside.uc_stack.ss_size = sizeof(stack);
	inside.uc_link = &outside;
	makecontext(&inside, (void (*)())on_other_stack, 1, n);
	swapcontext(&outside, &inside);
	swapcontext(&outside, &inside);
}

static int compare(const void *, const void *)
{
	static int n;

	if (n++ % 8 == 0)
		leaf(8000);
	return 0;
}

static void *thread(void *n)
{
	Base().descend((intptr_t)n, 2.0, "t");
	return nullptr;
}

OPAQUE void shape(const std::string &name, int n)
{
	if (name == "recursion") {
		Derived().descend(n, 1.0, "r");
	} else if (name == "exceptions") {
		catching(n);
	} else if (name == "signals") {
		signalled(false);
		signalled(true);
	} else if (name == "alloca") {
		with_alloca(n);
	} else if (name == "aligned") {
		with_aligned_frame(n);
	} else if (name == "tail-calls") {
		before_jump(n);
	} else if (name == "coroutines") {
		coroutine(n);
	} else if (name == "callbacks") {
		int numbers[16] = {};

		qsort(numbers, 16, sizeof(int), compare);
	} else if (name == "threads") {
		pthread_t made;

		pthread_create(&made, nullptr, thread, (void *)(intptr_t)n);
		pthread_join(made, nullptr);
	} else if (name == "library") {
		static void *library = dlopen(getenv("SHAPES_LIBRARY"), RTLD_NOW);

		((void (*)(void (*)(int), int))dlsym(library, "through_library"))(before_jump, n);
	} else if (name == "fork") {
		// The child goes on with the conversation.
		int child = fork();

		if (child)
			_exit(waitpid(child, nullptr, 0) != child);
	} else if (name == "exec") {
		printf(".\n");
		fflush(stdout);
		execl("/proc/self/exe", "shapes", nullptr);
	}
}

int main()
{
	char name[64];
	int n;
	void *warm[4];

	backtrace(warm, 4);
	pages = (char *)mmap(nullptr, 1 << 24, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	madvise(pages, 1 << 24, MADV_NOHUGEPAGE);
	while (scanf("%63s %d", name, &n) == 2) {
		stacks.clear();
		shape(name, n);
		for (const auto &frames : stacks) {
			for (void *frame : frames)
				printf("%lx ", (long)frame);
			printf("\n");
		}
		printf(".\n");
		fflush(stdout);
	}
	return 0;
}
