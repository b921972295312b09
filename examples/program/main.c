/* Runs the scripts below and prints what they printed, or why they failed; with a file's name, that file. */
#include "calc.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
    const char *title, *source;
} scripts[] = {
    {"precedence", "print 1 + 2 * 3 - 4 / 2 % 3; print (1 + 2) * -3; print !0 + !7; print 0xff - 255;"},
    {"comparisons", "print 1 < 2; print 2 <= 1; print 3 > 2; print 3 >= 4; print 5 == 5; print 5 != 5;"},
    {"logic", "print 0 && 1 / 0; print 3 || 1 / 0; print 2 && 0 || 9; print 1 < 2 && 2 < 3;"},
    {"greatest common divisor",
     "fn gcd(a, b) { while (b) { t = a % b; a = b; b = t; } return a; }\n"
     "print gcd(1071, 462); print gcd(270, 192); print gcd(17, 5);"},
    {"recursion",
     "fn fib(n) { if (n < 2) { return n; } return fib(n - 1) + fib(n - 2); }\n"
     "fn ackermann(m, n) {\n"
     "  if (m == 0) { return n + 1; } else if (n == 0) { return ackermann(m - 1, 1); }\n"
     "  return ackermann(m - 1, ackermann(m, n - 1));\n"
     "}\n"
     "print fib(16); print ackermann(2, 5);"},
    {"primes",
     "n = 2; sum = 0; count = 0;\n"
     "while (count < 25) {\n"
     "  d = 2; prime = 1;\n"
     "  while (prime && d * d <= n) { if (n % d == 0) { prime = 0; } d = d + 1; }\n"
     "  if (prime) { sum = sum + n; count = count + 1; }\n"
     "  n = n + 1;\n"
     "}\n"
     "print n - 1; print sum;"},
    {"random numbers",
     "seed = 12345;\n"
     "fn next() { seed = (seed * 1103515245 + 12345) % 2147483648; return seed / 65536; }\n"
     "i = 0; even = 0;\n"
     "while (i < 500) { if (next() % 2 == 0) { even = even + 1; } i = i + 1; }\n"
     "print even; print next();"},
    {"wrapping",
     "print 9223372036854775807 + 1; print -9223372036854775807 - 2;\n"
     "print (0 - 9223372036854775807 - 1) / -1;"},
    {"many names",
     "a = 1; b = 2; c = 3; d = 4; e = 5; f = 6; g = 7; h = 8; i = 9; j = 10; k = 11; l = 12;\n"
     "# every one of them must still be found after the table has grown\n"
     "print a + b + c + d + e + f + g + h + i + j + k + l;"},
    {"division by zero", "print 1; print 1 / (2 - 2);"},
    {"endless recursion", "fn f(n) { return f(n + 1); }\nf(0);"},
    {"endless loop", "while (1) { x = 1; }"},
    {"unknown name", "x = 1;\nprint x + y;"},
    {"unknown function", "print f(1);"},
    {"argument count", "fn f(a) { return a; }\nprint f(1, 2);"},
    {"missing semicolon", "print 1\nprint 2;"},
    {"strange character", "print 1 @ 2;"},
    {"number too large", "print 99999999999999999999;"},
    {"open block", "if (1) { print 2;"},
    {"misplaced return", "return 1;"},
};

static Program program;

static void report(const char *title, const char *source)
{
    Run result;
    printf("%s:", title);
    if (!compile(source, &program)) {
        printf(" error, %s\n", program.error);
        return;
    }
    run(&program, 200000, &result);
    for (size_t i = 0; i < result.count; i++)
        printf(" %" PRId64, result.printed[i]);
    if (result.error)
        printf(" stopped, %s", result.error);
    printf(" (%zu words, %" PRIu64 " steps)\n", program.size, result.steps);
}

static int run_file(const char *path)
{
    static char source[1 << 16];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return EXIT_FAILURE;
    }
    source[fread(source, 1, sizeof source - 1, file)] = 0;
    fclose(file);
    report(path, source);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return run_file(argv[1]);
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++)
        report(scripts[i].title, scripts[i].source);
    if (compile("fn half(n) { return n / 2; }\nprint half(10) >= 5 || 0;", &program))
        disassemble(&program);
    return EXIT_SUCCESS;
}
