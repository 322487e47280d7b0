/* A library that the simulator opens three seconds after its start. Its program's functions are found by -rdynamic. */
#include "simulator.h"

#include <stdlib.h>

void plugin_step(void);

SITE static void site_dlopen(size_t size)
{
	forget(fill(malloc(size), size));
	leaked(size);
}

void plugin_step(void)
{
	while (owed() > 2000)
		site_dlopen(between(100, 2000));
	worked(1);
}
