#include "calc.h"

#include <string.h>

static const struct {
    const char *text;
    TokenKind kind;
} words[] = {
    {"fn", TOKEN_FN},       {"if", TOKEN_IF},         {"else", TOKEN_ELSE},
    {"while", TOKEN_WHILE}, {"return", TOKEN_RETURN}, {"print", TOKEN_PRINT},
};

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

void lexer_init(Lexer *lexer, const char *source)
{
    lexer->at = source;
    lexer->line = 1;
}

static void skip_blanks(Lexer *lexer)
{
    for (;; lexer->at++) {
        if (*lexer->at == '\n')
            lexer->line++;
        else if (*lexer->at == '#')
            while (lexer->at[1] && lexer->at[1] != '\n')
                lexer->at++;
        else if (*lexer->at != ' ' && *lexer->at != '\t')
            return;
    }
}

static Token finish(Lexer *lexer, TokenKind kind, const char *start)
{
    return (Token){kind, start, (size_t)(lexer->at - start), 0, lexer->line};
}

/* The token of one character, or of that character and another. */
static Token either(Lexer *lexer, TokenKind single, char second, TokenKind both)
{
    const char *start = lexer->at++;
    if (*lexer->at != second)
        return finish(lexer, single, start);
    lexer->at++;
    return finish(lexer, both, start);
}

static Token number(Lexer *lexer)
{
    const char *start = lexer->at;
    int64_t value = 0;
    bool overflow = false;
    if (start[0] == '0' && start[1] == 'x') {
        for (lexer->at += 2;; lexer->at++) {
            char c = *lexer->at;
            int digit = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
            if (digit < 0)
                break;
            overflow |= value >> 59 != 0;
            value = (int64_t)((uint64_t)value << 4) | digit;
        }
    } else {
        for (; is_digit(*lexer->at); lexer->at++)
            overflow |= __builtin_mul_overflow(value, 10, &value)
                        || __builtin_add_overflow(value, *lexer->at - '0', &value);
    }
    Token token = finish(lexer, overflow || is_letter(*lexer->at) ? TOKEN_ERROR : TOKEN_NUMBER, start);
    token.number = value;
    return token;
}

static Token name(Lexer *lexer)
{
    const char *start = lexer->at;
    while (is_letter(*lexer->at) || is_digit(*lexer->at))
        lexer->at++;
    Token token = finish(lexer, TOKEN_NAME, start);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (token.size == strlen(words[i].text) && memcmp(start, words[i].text, token.size) == 0)
            token.kind = words[i].kind;
    return token;
}

Token lexer_next(Lexer *lexer)
{
    skip_blanks(lexer);
    char c = *lexer->at;
    if (c == 0)
        return finish(lexer, TOKEN_END, lexer->at);
    if (is_digit(c))
        return number(lexer);
    if (is_letter(c))
        return name(lexer);
    switch (c) {
    case '=': return either(lexer, TOKEN_ASSIGN, '=', TOKEN_EQUAL);
    case '!': return either(lexer, TOKEN_NOT, '=', TOKEN_NOT_EQUAL);
    case '<': return either(lexer, TOKEN_LESS, '=', TOKEN_LESS_EQUAL);
    case '>': return either(lexer, TOKEN_GREATER, '=', TOKEN_GREATER_EQUAL);
    case '&': return either(lexer, TOKEN_ERROR, '&', TOKEN_AND);
    case '|': return either(lexer, TOKEN_ERROR, '|', TOKEN_OR);
    }
    static const char singles[] = "+-*/%(){},;";
    static const TokenKind kinds[] = {
        TOKEN_PLUS,        TOKEN_MINUS,      TOKEN_STAR,        TOKEN_SLASH, TOKEN_PERCENT,   TOKEN_LEFT_PAREN,
        TOKEN_RIGHT_PAREN, TOKEN_LEFT_BRACE, TOKEN_RIGHT_BRACE, TOKEN_COMMA, TOKEN_SEMICOLON,
    };
    const char *found = strchr(singles, c);
    const char *start = lexer->at++;
    return finish(lexer, found ? kinds[found - singles] : TOKEN_ERROR, start);
}
