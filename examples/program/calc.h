/* calc: a small integer language, compiled to bytecode and run on a stack machine.
 *
 *     fn gcd(a, b) { while (b) { t = a % b; a = b; b = t; } return a; }
 *     print gcd(1071, 462);
 */
#ifndef CALC_H
#define CALC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    TOKEN_END, TOKEN_ERROR, TOKEN_NUMBER, TOKEN_NAME, TOKEN_FN, TOKEN_IF, TOKEN_ELSE, TOKEN_WHILE, TOKEN_RETURN,
    TOKEN_PRINT, TOKEN_PLUS, TOKEN_MINUS, TOKEN_STAR, TOKEN_SLASH, TOKEN_PERCENT, TOKEN_NOT, TOKEN_ASSIGN, TOKEN_EQUAL,
    TOKEN_NOT_EQUAL, TOKEN_LESS, TOKEN_LESS_EQUAL, TOKEN_GREATER, TOKEN_GREATER_EQUAL, TOKEN_AND, TOKEN_OR,
    TOKEN_LEFT_PAREN, TOKEN_RIGHT_PAREN, TOKEN_LEFT_BRACE, TOKEN_RIGHT_BRACE, TOKEN_COMMA, TOKEN_SEMICOLON
} TokenKind;

typedef struct {
    TokenKind kind;
    const char *start;
    size_t size;
    int64_t number;
    unsigned line;
} Token;

typedef struct {
    const char *at;
    unsigned line;
} Lexer;

void lexer_init(Lexer *lexer, const char *source);
Token lexer_next(Lexer *lexer);

/* Names to small numbers; open addressing, grows by doubling. */
typedef struct {
    char *name;
    unsigned value;
} Entry;

typedef struct {
    Entry *entries;
    size_t capacity, used;
} Map;

bool map_find(const Map *map, const char *name, size_t size, unsigned *value);
void map_insert(Map *map, const char *name, size_t size, unsigned value);
void map_free(Map *map);

typedef enum {
    OP_CONSTANT, OP_LOAD, OP_STORE, OP_LOAD_LOCAL, OP_STORE_LOCAL, OP_NEGATE, OP_NOT, OP_ADD, OP_SUBTRACT, OP_MULTIPLY,
    OP_DIVIDE, OP_REMAINDER, OP_EQUAL, OP_LESS, OP_SWAP, OP_DUPLICATE, OP_DROP, OP_JUMP, OP_JUMP_IF_ZERO, OP_CALL,
    OP_RETURN, OP_PRINT, OP_HALT
} Op;

typedef struct {
    size_t entry;
    unsigned parameters, locals;
    char name[16];
} Function;

enum { MAX_CODE = 4096, MAX_FUNCTIONS = 32, MAX_GLOBALS = 64, STACK_SIZE = 1024, MAX_CALLS = 128 };

typedef struct {
    int64_t code[MAX_CODE];
    size_t size;
    Function functions[MAX_FUNCTIONS];
    unsigned function_count, global_count;
    char error[96];
} Program;

bool compile(const char *source, Program *program);
void disassemble(const Program *program);

typedef struct {
    int64_t printed[64];
    size_t count;
    uint64_t steps;
    const char *error; /* NULL when the program halted by itself */
} Run;

void run(const Program *program, uint64_t step_limit, Run *result);

#endif
