/* The C++ simulator: what leaks and what does not through operator new and the standard containers. */
#include "simulator.h"

#include <algorithm>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

/* A kind that leaks blocks of low..high bytes through one function, site_NAME. */
template <void (*site)(size_t), size_t low, size_t high> void step_sites()
{
	static size_t next;

	while (owed() >= (next = next ? next : between(low, high))) {
		site(next);
		worked(1);
		next = 0;
	}
}

struct Order {
	char text[240];
};

SITE void site_new(size_t)
{
	forget(fill(new Order, sizeof(Order)));
	leaked(sizeof(Order));
}

SITE void site_new_array(size_t size)
{
	forget(fill(new char[size], size));
	leaked(size);
}

/* Two objects that own each other: the last outside owner goes, they stay. */
struct Partner {
	std::shared_ptr<Partner> other;
	std::string name;
};
SITE void site_shared_cycle(size_t size)
{
	auto left = std::make_shared<Partner>(), right = std::make_shared<Partner>();

	left->name.assign(size, 'l');
	right->name.assign(size, 'r');
	left->other = right;
	right->other = left;
	leaked(2 * (size + sizeof(Partner) + 17));
}

std::vector<std::string> history;
SITE void site_vector_growth(size_t size)
{
	history.emplace_back(size, 'h');
	leaked(size + sizeof(std::string));
}

std::map<uint64_t, std::string> accounts;
SITE void site_map_growth(size_t size)
{
	accounts.emplace(draw(), std::string(size, 'a'));
	leaked(size + 80);
}

std::unordered_map<uint64_t, std::vector<char>> visits;
SITE void site_unordered_map_growth(size_t size)
{
	visits[draw()].assign(size, 'v');
	leaked(size + 48);
}

/* Consumed more slowly than produced: the queue has no bound. */
std::deque<std::vector<char>> backlog;
SITE void site_deque_growth(size_t size)
{
	backlog.emplace_back(size, 'b');
	leaked(size + 24);
}

/* The destructor is not virtual: what the derived class holds stays. */
struct Base {
	int tag = 0;
};
struct Derived : Base {
	std::vector<char> data;
	explicit Derived(size_t size) : data(size, 'd') {}
};
SITE void site_sliced_delete(size_t size)
{
	Base *object = new Derived(size);

	leaked(size);
	::operator delete(static_cast<void *>(object));   /* as `delete object` frees the object, but not its member */
}

/* An exception flies over the delete. */
SITE void throw_when_late(size_t size)
{
	if (size % 2 == 0)
		throw std::runtime_error("late");
}
SITE void site_exception(size_t size)
{
	char *buffer = new char[size];

	fill(buffer, size);
	throw_when_late(size);
	delete[] buffer;
}
void answer_exception(size_t size)
{
	try {
		site_exception(size);
	} catch (const std::runtime_error &) {
		leaked(size);
	}
}

/* --- healthy ------------------------------------------------------------------------------------------------------- */

/* Least recently used goes first; full after 20 s. */
SITE void site_lru_map(std::list<std::pair<uint64_t, std::string>> &order,
                       std::unordered_map<uint64_t, std::list<std::pair<uint64_t, std::string>>::iterator> &index)
{
	uint64_t key = draw() % 40000;
	auto found = index.find(key);

	if (found != index.end()) {
		order.splice(order.begin(), order, found->second);
		return;
	}
	order.emplace_front(key, std::string(between(500, 2500), 'c'));
	index[key] = order.begin();
	if (order.size() > 8000) {
		index.erase(order.back().first);
		order.pop_back();
	}
}
void step_lru_map()
{
	static std::list<std::pair<uint64_t, std::string>> order;
	static std::unordered_map<uint64_t, std::list<std::pair<uint64_t, std::string>>::iterator> index;
	static double n;

	for (; n < elapsed_s() * 420; n++)
		site_lru_map(order, index);
}

SITE void site_report(std::vector<std::string> &lines) { lines.emplace_back(between(50, 600), 'r'); }
void step_report()   /* a report is built line by line for nine seconds, sent, and thrown away */
{
	static std::vector<std::string> lines;
	static double began_s, n;

	for (; n < elapsed_s() * 3000; n++)
		site_report(lines);
	if (elapsed_s() - began_s > 9) {
		std::vector<std::string>().swap(lines);
		began_s = elapsed_s();
	}
}

SITE std::shared_ptr<Partner> site_shared_tree(const std::shared_ptr<Partner> &below)
{
	auto node = std::make_shared<Partner>();

	node->other = below;
	node->name.assign(between(50, 500), 't');
	return node;
}
void step_shared_tree()   /* chains of shared objects, each replaced as a whole */
{
	static std::shared_ptr<Partner> chains[64];
	auto &chain = chains[draw() % 64];

	chain = nullptr;
	for (int i = 0; i < 100; i++)
		chain = site_shared_tree(chain);
}

SITE void site_priority(std::multimap<double, std::string> &waiting)
{
	waiting.emplace(elapsed_s() + draw_exponential(6), std::string(between(300, 3000), 'p'));
}
void step_priority()   /* jobs wait for six seconds on average */
{
	static std::multimap<double, std::string> waiting;
	static double n;

	for (; n < elapsed_s() * 500; n++)
		site_priority(waiting);
	waiting.erase(waiting.begin(), waiting.lower_bound(elapsed_s()));
}

}  // namespace

const struct kind kinds[] = {
	{ "new", nullptr, step_sites<site_new, sizeof(Order), sizeof(Order)>, 0, true },
	{ "new_array", nullptr, step_sites<site_new_array, 100, 4000>, 0, true },
	{ "shared_cycle", nullptr, step_sites<site_shared_cycle, 50, 900>, 0, true },
	{ "vector_growth", nullptr, step_sites<site_vector_growth, 50, 900>, 0, true },
	{ "map_growth", nullptr, step_sites<site_map_growth, 50, 900>, 0, true },
	{ "unordered_map_growth", nullptr, step_sites<site_unordered_map_growth, 50, 900>, 0, true },
	{ "deque_growth", nullptr, step_sites<site_deque_growth, 50, 900>, 0, true },
	{ "sliced_delete", nullptr, step_sites<site_sliced_delete, 100, 2000>, 0, true },
	{ "exception", nullptr, step_sites<answer_exception, 100, 2000>, 0, true },
	{ "lru_map", nullptr, step_lru_map, 0, false },
	{ "report", nullptr, step_report, 0, false },
	{ "shared_tree", nullptr, step_shared_tree, 0, false },
	{ "priority", nullptr, step_priority, 0, false },
	{ nullptr, nullptr, nullptr, 0, false },
};
