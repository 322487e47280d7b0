// A function template that is inlined into a member function of a class template.
#include <cstddef>
extern "C" void *take(size_t n);
namespace deep {
template <class T> inline __attribute__((always_inline)) void *leaf(T n) { return take(n + 1); }
template <class T> struct Box {
  void *last;
  __attribute__((noinline)) int put(T n) {
    last = leaf(n);
    return last != nullptr;
  }
};
}
extern "C" void *take(size_t n) { return reinterpret_cast<void *>(n); }
extern "C" int entry(int n) {
  deep::Box<int> box;
  return box.put(n);
}
