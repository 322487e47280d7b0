// A C++ program for bench/collapse.py: long template names, the allocator, and a name of its own choosing.
// Usage: busy SECONDS
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <map>
#include <string>
#include <sys/prctl.h>
#include <vector>

namespace shop {
template <class Item> struct Cart {
    std::vector<Item> items;
    __attribute__((noinline)) double price(unsigned long n) const {
        double sum = 0;
        for (unsigned long i = 0; i < n; i++)
            sum += std::sqrt(double(i + items.size()));
        return sum;
    }
};
__attribute__((noinline)) size_t index(int n) {
    std::map<std::string, int> table;
    for (int i = 0; i < n; i++)
        table["item number " + std::to_string(i * 7919 % n)] = i;
    return table.size();
}
} // namespace shop

int main(int argc, char **argv) {
    prctl(PR_SET_NAME, "busy (c++) 1/2", 0, 0, 0);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(argc > 1 ? std::atoi(argv[1]) : 1);
    shop::Cart<std::map<std::string, std::vector<int>>> cart;
    double sum = 0;
    while (std::chrono::steady_clock::now() < end)
        sum += cart.price(100000) + shop::index(2000);
    return sum < 0;
}
