#include "calc.h"

#include <inttypes.h>
#include <stdio.h>

static const struct {
    const char *name;
    int operands, pops, pushes;
} ops[] = {
    [OP_CONSTANT] = {"constant", 1, 0, 1},
    [OP_LOAD] = {"load", 1, 0, 1},
    [OP_STORE] = {"store", 1, 1, 0},
    [OP_LOAD_LOCAL] = {"load local", 1, 0, 1},
    [OP_STORE_LOCAL] = {"store local", 1, 1, 0},
    [OP_NEGATE] = {"negate", 0, 1, 1},
    [OP_NOT] = {"not", 0, 1, 1},
    [OP_ADD] = {"add", 0, 2, 1},
    [OP_SUBTRACT] = {"subtract", 0, 2, 1},
    [OP_MULTIPLY] = {"multiply", 0, 2, 1},
    [OP_DIVIDE] = {"divide", 0, 2, 1},
    [OP_REMAINDER] = {"remainder", 0, 2, 1},
    [OP_EQUAL] = {"equal", 0, 2, 1},
    [OP_LESS] = {"less", 0, 2, 1},
    [OP_SWAP] = {"swap", 0, 2, 2},
    [OP_DUPLICATE] = {"duplicate", 0, 1, 2},
    [OP_DROP] = {"drop", 0, 1, 0},
    [OP_JUMP] = {"jump", 1, 0, 0},
    [OP_JUMP_IF_ZERO] = {"jump if zero", 1, 1, 0},
    [OP_CALL] = {"call", 1, 0, 1},
    [OP_RETURN] = {"return", 0, 1, 0},
    [OP_PRINT] = {"print", 0, 1, 0},
    [OP_HALT] = {"halt", 0, 0, 0},
};

void disassemble(const Program *program)
{
    for (size_t at = 0; at < program->size; at++) {
        for (unsigned i = 0; i < program->function_count; i++)
            if (program->functions[i].entry == at)
                printf("%s/%u:\n", program->functions[i].name, program->functions[i].parameters);
        int64_t op = program->code[at];
        printf("%4zu  %s", at, ops[op].name);
        if (op == OP_CALL)
            printf(" %s", program->functions[program->code[++at]].name);
        else if (ops[op].operands)
            printf(" %" PRId64, program->code[++at]);
        putchar('\n');
    }
}

typedef struct {
    size_t back, base;
} Frame;

typedef struct {
    int64_t stack[STACK_SIZE], globals[MAX_GLOBALS];
    size_t top, base;
    Frame frames[MAX_CALLS];
    size_t calls;
} Machine;

/* Integer arithmetic wraps around; a quotient that does not exist ends the program. */
static const char *arithmetic(Op op, int64_t left, int64_t right, int64_t *result)
{
    uint64_t a = (uint64_t)left, b = (uint64_t)right;
    switch (op) {
    case OP_ADD: *result = (int64_t)(a + b); break;
    case OP_SUBTRACT: *result = (int64_t)(a - b); break;
    case OP_MULTIPLY: *result = (int64_t)(a * b); break;
    case OP_EQUAL: *result = left == right; break;
    case OP_LESS: *result = left < right; break;
    default:
        if (right == 0)
            return "division by zero";
        if (right == -1)
            *result = op == OP_DIVIDE ? (int64_t)(0 - a) : 0;
        else
            *result = op == OP_DIVIDE ? left / right : left % right;
    }
    return NULL;
}

static const char *enter(Machine *machine, const Function *function, size_t *at)
{
    if (machine->calls == MAX_CALLS)
        return "too many calls";
    if (machine->top + function->locals > STACK_SIZE - 4)
        return "the stack is full";
    machine->frames[machine->calls++] = (Frame){*at, machine->base};
    machine->base = machine->top - function->parameters;
    for (unsigned i = function->parameters; i < function->locals; i++)
        machine->stack[machine->top++] = 0;
    *at = function->entry;
    return NULL;
}

static void leave(Machine *machine, size_t *at)
{
    int64_t result = machine->stack[machine->top - 1];
    Frame frame = machine->frames[--machine->calls];
    machine->top = machine->base;
    machine->stack[machine->top++] = result;
    machine->base = frame.base;
    *at = frame.back;
}

void run(const Program *program, uint64_t step_limit, Run *result)
{
    static Machine machine;
    int64_t *stack = machine.stack;
    size_t at = 0;
    machine.top = machine.base = machine.calls = 0;
    *result = (Run){.error = NULL};
    for (size_t i = 0; i < MAX_GLOBALS; i++)
        machine.globals[i] = 0;
    for (;;) {
        Op op = (Op)program->code[at++];
        int64_t operand = ops[op].operands ? program->code[at++] : 0, value;
        if (result->steps++ == step_limit)
            result->error = "too many steps";
        if (machine.top + (size_t)ops[op].pushes > STACK_SIZE - 2)
            result->error = "the stack is full";
        if (result->error)
            return;
        switch (op) {
        case OP_CONSTANT: stack[machine.top++] = operand; break;
        case OP_LOAD: stack[machine.top++] = machine.globals[operand]; break;
        case OP_STORE: machine.globals[operand] = stack[--machine.top]; break;
        case OP_LOAD_LOCAL: stack[machine.top++] = stack[machine.base + (size_t)operand]; break;
        case OP_STORE_LOCAL: stack[machine.base + (size_t)operand] = stack[machine.top - 1], machine.top--; break;
        case OP_NEGATE: stack[machine.top - 1] = (int64_t)(0 - (uint64_t)stack[machine.top - 1]); break;
        case OP_NOT: stack[machine.top - 1] = !stack[machine.top - 1]; break;
        case OP_SWAP:
            value = stack[machine.top - 1];
            stack[machine.top - 1] = stack[machine.top - 2];
            stack[machine.top - 2] = value;
            break;
        case OP_DUPLICATE:
            stack[machine.top] = stack[machine.top - 1];
            machine.top++;
            break;
        case OP_DROP: machine.top--; break;
        case OP_JUMP: at = (size_t)operand; break;
        case OP_JUMP_IF_ZERO:
            if (stack[--machine.top] == 0)
                at = (size_t)operand;
            break;
        case OP_CALL: result->error = enter(&machine, &program->functions[operand], &at); break;
        case OP_RETURN: leave(&machine, &at); break;
        case OP_PRINT:
            if (result->count < sizeof result->printed / sizeof *result->printed)
                result->printed[result->count++] = stack[machine.top - 1];
            machine.top--;
            break;
        case OP_HALT: return;
        default:
            machine.top--;
            result->error = arithmetic(op, stack[machine.top - 1], stack[machine.top], &stack[machine.top - 1]);
        }
    }
}
