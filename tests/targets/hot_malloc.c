/* Allocates and frees as fast as it can: some million pairs a second. Ends with its parent. */
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>

int main(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		void *volatile block = malloc(48);
		free(block);
	}
}
