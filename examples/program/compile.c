/* One pass from tokens to bytecode: statements by recursive descent, expressions by precedence. */
#include "calc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    Lexer lexer;
    Token token;
    Program *program;
    Map globals, functions, locals;
    Function *function; /* NULL outside of one */
    jmp_buf failure;
} Compiler;

static _Noreturn void fail(Compiler *compiler, const char *format, ...)
{
    Program *program = compiler->program;
    int used = snprintf(program->error, sizeof program->error, "line %u: ", compiler->token.line);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(program->error + used, sizeof program->error - (size_t)used, format, arguments);
    va_end(arguments);
    longjmp(compiler->failure, 1);
}

static void advance(Compiler *compiler)
{
    compiler->token = lexer_next(&compiler->lexer);
    if (compiler->token.kind == TOKEN_ERROR)
        fail(compiler, "'%.*s' is not understood", (int)compiler->token.size, compiler->token.start);
}

static bool accept(Compiler *compiler, TokenKind kind)
{
    if (compiler->token.kind != kind)
        return false;
    advance(compiler);
    return true;
}

static void expect(Compiler *compiler, TokenKind kind, const char *what)
{
    if (!accept(compiler, kind))
        fail(compiler, "%s expected before '%.*s'", what, (int)compiler->token.size, compiler->token.start);
}

static Token expect_name(Compiler *compiler)
{
    Token name = compiler->token;
    expect(compiler, TOKEN_NAME, "a name");
    return name;
}

static void emit(Compiler *compiler, int64_t word)
{
    if (compiler->program->size == MAX_CODE)
        fail(compiler, "the program is too long");
    compiler->program->code[compiler->program->size++] = word;
}

static void emit2(Compiler *compiler, Op op, int64_t operand)
{
    emit(compiler, op);
    emit(compiler, operand);
}

/* A jump whose target is filled in later: by `land`. */
static size_t emit_jump(Compiler *compiler, Op op)
{
    emit2(compiler, op, -1);
    return compiler->program->size - 1;
}

static void land(Compiler *compiler, size_t jump) { compiler->program->code[jump] = (int64_t)compiler->program->size; }

static void expression(Compiler *compiler, int lowest);

static void call(Compiler *compiler, Token name)
{
    unsigned index, count = 0;
    if (!map_find(&compiler->functions, name.start, name.size, &index))
        fail(compiler, "no function is called '%.*s'", (int)name.size, name.start);
    while (compiler->token.kind != TOKEN_RIGHT_PAREN) {
        if (count++)
            expect(compiler, TOKEN_COMMA, "','");
        expression(compiler, 0);
    }
    advance(compiler);
    unsigned wanted = compiler->program->functions[index].parameters;
    if (count != wanted)
        fail(compiler, "'%.*s' takes %u arguments, not %u", (int)name.size, name.start, wanted, count);
    emit2(compiler, OP_CALL, index);
}

static void operand(Compiler *compiler)
{
    Token token = compiler->token;
    unsigned index;
    advance(compiler);
    switch (token.kind) {
    case TOKEN_NUMBER: emit2(compiler, OP_CONSTANT, token.number); break;
    case TOKEN_MINUS:
        operand(compiler);
        emit(compiler, OP_NEGATE);
        break;
    case TOKEN_NOT:
        operand(compiler);
        emit(compiler, OP_NOT);
        break;
    case TOKEN_LEFT_PAREN:
        expression(compiler, 0);
        expect(compiler, TOKEN_RIGHT_PAREN, "')'");
        break;
    case TOKEN_NAME:
        if (accept(compiler, TOKEN_LEFT_PAREN))
            call(compiler, token);
        else if (map_find(&compiler->locals, token.start, token.size, &index))
            emit2(compiler, OP_LOAD_LOCAL, index);
        else if (map_find(&compiler->globals, token.start, token.size, &index))
            emit2(compiler, OP_LOAD, index);
        else
            fail(compiler, "'%.*s' has no value yet", (int)token.size, token.start);
        break;
    default: fail(compiler, "an expression cannot begin with '%.*s'", (int)token.size, token.start);
    }
}

static int precedence(TokenKind kind)
{
    switch (kind) {
    case TOKEN_OR: return 1;
    case TOKEN_AND: return 2;
    case TOKEN_EQUAL:
    case TOKEN_NOT_EQUAL: return 3;
    case TOKEN_LESS:
    case TOKEN_LESS_EQUAL:
    case TOKEN_GREATER:
    case TOKEN_GREATER_EQUAL: return 4;
    case TOKEN_PLUS:
    case TOKEN_MINUS: return 5;
    case TOKEN_STAR:
    case TOKEN_SLASH:
    case TOKEN_PERCENT: return 6;
    default: return 0;
    }
}

/* `a && b` is b where a is not zero, else a: the value that decided stays on the stack. */
static void short_circuit(Compiler *compiler, TokenKind kind)
{
    emit(compiler, OP_DUPLICATE);
    if (kind == TOKEN_OR)
        emit(compiler, OP_NOT);
    size_t decided = emit_jump(compiler, OP_JUMP_IF_ZERO);
    emit(compiler, OP_DROP);
    expression(compiler, precedence(kind));
    land(compiler, decided);
}

static void binary(Compiler *compiler, TokenKind kind)
{
    switch (kind) {
    case TOKEN_PLUS: emit(compiler, OP_ADD); break;
    case TOKEN_MINUS: emit(compiler, OP_SUBTRACT); break;
    case TOKEN_STAR: emit(compiler, OP_MULTIPLY); break;
    case TOKEN_SLASH: emit(compiler, OP_DIVIDE); break;
    case TOKEN_PERCENT: emit(compiler, OP_REMAINDER); break;
    case TOKEN_EQUAL: emit(compiler, OP_EQUAL); break;
    case TOKEN_NOT_EQUAL: emit2(compiler, OP_EQUAL, OP_NOT); break;
    case TOKEN_LESS: emit(compiler, OP_LESS); break;
    case TOKEN_GREATER_EQUAL: emit2(compiler, OP_LESS, OP_NOT); break;
    case TOKEN_GREATER: emit2(compiler, OP_SWAP, OP_LESS); break;
    default:
        emit2(compiler, OP_SWAP, OP_LESS);
        emit(compiler, OP_NOT);
    }
}

static void expression(Compiler *compiler, int lowest)
{
    operand(compiler);
    for (int level; (level = precedence(compiler->token.kind)) > lowest;) {
        TokenKind kind = compiler->token.kind;
        advance(compiler);
        if (kind == TOKEN_AND || kind == TOKEN_OR) {
            short_circuit(compiler, kind);
        } else {
            expression(compiler, level);
            binary(compiler, kind);
        }
    }
}

static void assign(Compiler *compiler, Token name)
{
    Function *function = compiler->function;
    unsigned index;
    expect(compiler, TOKEN_ASSIGN, "'='");
    expression(compiler, 0);
    if (map_find(&compiler->locals, name.start, name.size, &index)) {
        emit2(compiler, OP_STORE_LOCAL, index);
    } else if (map_find(&compiler->globals, name.start, name.size, &index)) {
        emit2(compiler, OP_STORE, index);
    } else if (function) {
        map_insert(&compiler->locals, name.start, name.size, function->locals);
        emit2(compiler, OP_STORE_LOCAL, function->locals++);
    } else {
        index = compiler->program->global_count++;
        if (index == MAX_GLOBALS)
            fail(compiler, "too many variables");
        map_insert(&compiler->globals, name.start, name.size, index);
        emit2(compiler, OP_STORE, index);
    }
    expect(compiler, TOKEN_SEMICOLON, "';'");
}

static void statement(Compiler *compiler);

static void block(Compiler *compiler)
{
    expect(compiler, TOKEN_LEFT_BRACE, "'{'");
    while (!accept(compiler, TOKEN_RIGHT_BRACE)) {
        if (compiler->token.kind == TOKEN_END)
            fail(compiler, "a block is not closed");
        statement(compiler);
    }
}

static void condition(Compiler *compiler)
{
    expect(compiler, TOKEN_LEFT_PAREN, "'('");
    expression(compiler, 0);
    expect(compiler, TOKEN_RIGHT_PAREN, "')'");
}

static void define(Compiler *compiler)
{
    Program *program = compiler->program;
    Token name = expect_name(compiler);
    if (compiler->function || program->function_count == MAX_FUNCTIONS)
        fail(compiler, "no function may be defined here");
    size_t past = emit_jump(compiler, OP_JUMP);
    Function *function = &program->functions[program->function_count];
    *function = (Function){.entry = program->size};
    snprintf(function->name, sizeof function->name, "%.*s", (int)name.size, name.start);
    map_insert(&compiler->functions, name.start, name.size, program->function_count++);
    compiler->function = function;
    expect(compiler, TOKEN_LEFT_PAREN, "'('");
    while (!accept(compiler, TOKEN_RIGHT_PAREN)) {
        if (function->parameters)
            expect(compiler, TOKEN_COMMA, "','");
        Token parameter = expect_name(compiler);
        map_insert(&compiler->locals, parameter.start, parameter.size, function->parameters++);
    }
    function->locals = function->parameters;
    block(compiler);
    emit2(compiler, OP_CONSTANT, 0);
    emit(compiler, OP_RETURN);
    map_free(&compiler->locals);
    compiler->function = NULL;
    land(compiler, past);
}

static void statement(Compiler *compiler)
{
    Token token = compiler->token;
    advance(compiler);
    switch (token.kind) {
    case TOKEN_FN: define(compiler); break;
    case TOKEN_NAME:
        if (accept(compiler, TOKEN_LEFT_PAREN)) {
            call(compiler, token);
            emit(compiler, OP_DROP);
            expect(compiler, TOKEN_SEMICOLON, "';'");
        } else {
            assign(compiler, token);
        }
        break;
    case TOKEN_PRINT:
    case TOKEN_RETURN:
        if (token.kind == TOKEN_RETURN && !compiler->function)
            fail(compiler, "'return' stands outside of a function");
        expression(compiler, 0);
        emit(compiler, token.kind == TOKEN_PRINT ? OP_PRINT : OP_RETURN);
        expect(compiler, TOKEN_SEMICOLON, "';'");
        break;
    case TOKEN_WHILE: {
        size_t top = compiler->program->size;
        condition(compiler);
        size_t out = emit_jump(compiler, OP_JUMP_IF_ZERO);
        block(compiler);
        emit2(compiler, OP_JUMP, (int64_t)top);
        land(compiler, out);
        break;
    }
    case TOKEN_IF: {
        condition(compiler);
        size_t otherwise = emit_jump(compiler, OP_JUMP_IF_ZERO);
        block(compiler);
        if (compiler->token.kind == TOKEN_ELSE) {
            size_t past = emit_jump(compiler, OP_JUMP);
            land(compiler, otherwise);
            advance(compiler);
            if (compiler->token.kind == TOKEN_IF)
                statement(compiler);
            else
                block(compiler);
            land(compiler, past);
        } else {
            land(compiler, otherwise);
        }
        break;
    }
    default: fail(compiler, "a statement cannot begin with '%.*s'", (int)token.size, token.start);
    }
}

bool compile(const char *source, Program *program)
{
    static Compiler compiler;
    memset(&compiler, 0, sizeof compiler);
    memset(program, 0, sizeof *program);
    compiler.program = program;
    lexer_init(&compiler.lexer, source);
    bool compiled = false;
    if (setjmp(compiler.failure) == 0) {
        advance(&compiler);
        while (compiler.token.kind != TOKEN_END)
            statement(&compiler);
        emit(&compiler, OP_HALT);
        compiled = true;
    }
    map_free(&compiler.globals);
    map_free(&compiler.functions);
    map_free(&compiler.locals);
    return compiled;
}
