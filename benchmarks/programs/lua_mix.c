/* Lua's virtual machine: trees, strings, tables, closures and floating point, by the script that is compiled in. */
#include "lauxlib.h"
#include "lualib.h"
#include "rounds.h"

static const char script[] =
    "local function tree(depth) if depth == 0 then return {} end return {tree(depth - 1), tree(depth - 1)} end\n"
    "local function count(t) if t[1] then return 1 + count(t[1]) + count(t[2]) end return 1 end\n"
    "local total = 0\n"
    "for i = 1, 4 do total = total + count(tree(11)) end\n"
    "local words, seen = {}, {}\n"
    "for i = 1, 6000 do words[i] = string.format('%d-%s', i * 7919 % 1009, ('x'):rep(i % 7)) end\n"
    "table.sort(words)\n"
    "for _, word in ipairs(words) do local key = word:match('^(%d+)'); seen[key] = (seen[key] or 0) + #word end\n"
    "for key, size in pairs(seen) do total = total + tonumber(key) * size end\n"
    "local x, y, z, steps = 1.0, 0.5, 0.25, 0\n"
    "for i = 1, 60000 do\n"
    "  x, y, z = x + 0.01 * 10 * (y - x), y + 0.01 * (x * (28 - z) - y), z + 0.01 * (x * y - 8 / 3 * z)\n"
    "  if x * y < 0 then steps = steps + 1 end\n"
    "end\n"
    "local function compose(f, g) return function(...) return f(g(...)) end end\n"
    "local f = function(n) return n + 1 end\n"
    "for i = 1, 8 do f = compose(f, f) end\n"
    "for i = 1, 100 do total = total + f(i) end\n"
    "local flags, primes = {}, 0\n"
    "for n = 2, 60000 do\n"
    "  if not flags[n] then primes = primes + 1; for m = n * n, 60000, n do flags[m] = true end end\n"
    "end\n"
    "return total * 1000003 + primes * 1009 + steps\n";

static uint64_t work(void) {
    lua_State *lua = luaL_newstate();
    luaL_openlibs(lua);
    if (luaL_dostring(lua, script)) {
        fprintf(stderr, "%s\n", lua_tostring(lua, -1));
        exit(1);
    }
    uint64_t result = (uint64_t)lua_tointeger(lua, -1);
    lua_close(lua);
    return result;
}
