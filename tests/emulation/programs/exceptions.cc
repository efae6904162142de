// Exceptions: thrown over many frames, with destructors on the way, rethrown, and in threads.
#include <cstdio>
#include <future>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

static int destroyed;
struct Counted {
    ~Counted() { destroyed++; }
};

[[gnu::noinline]] static int down(int depth) {
    Counted counted;
    if (depth == 0) throw std::runtime_error("the bottom");
    return down(depth - 1) + 1;
}

struct Base {
    virtual ~Base() = default;
    virtual int value() const { return 1; }
};
struct Derived : Base {
    int value() const override { return 2; }
};

int main() {
    long sum = 0;
    for (int round = 0; round < 100; round++) {
        try {
            sum += down(round);
        } catch (const std::runtime_error &error) {
            sum += static_cast<long>(std::string(error.what()).size());
        }
    }
    std::printf("sum %ld, destroyed %d\n", sum, destroyed);
    try {
        try {
            throw 42;
        } catch (int number) {
            std::printf("caught %d\n", number);
            throw;
        }
    } catch (...) {
        std::puts("and again");
    }
    try {
        std::vector<int>().at(3);
    } catch (const std::out_of_range &) {
        std::puts("out of range");
    }
    Derived derived;
    Base &base = derived;
    std::printf("virtual %d, dynamic %d\n", base.value(), dynamic_cast<Derived *>(&base) != nullptr);
    auto later = std::async(std::launch::async, []() -> int { throw std::logic_error("from a thread"); });
    try {
        later.get();
    } catch (const std::logic_error &error) {
        std::printf("%s\n", error.what());
    }
    std::map<std::string, int> words;
    for (const char *word : {"one", "two", "one", "three", "two", "one"}) words[word]++;
    for (const auto &[word, count] : words) std::printf("%s %d ", word.c_str(), count);
    std::puts("");
}
