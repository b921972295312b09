#include "calc.h"

#include <stdlib.h>
#include <string.h>

static size_t hash(const char *name, size_t size)
{
    uint64_t value = 14695981039346656037u;
    for (size_t i = 0; i < size; i++)
        value = (value ^ (unsigned char)name[i]) * 1099511628211u;
    return (size_t)(value ^ value >> 32);
}

static Entry *find(const Map *map, const char *name, size_t size)
{
    for (size_t at = hash(name, size);; at++) {
        Entry *entry = &map->entries[at & (map->capacity - 1)];
        if (!entry->name || (strlen(entry->name) == size && memcmp(entry->name, name, size) == 0))
            return entry;
    }
}

static void grow(Map *map)
{
    Map wider = {NULL, map->capacity ? 2 * map->capacity : 8, map->used};
    wider.entries = calloc(wider.capacity, sizeof *wider.entries);
    if (!wider.entries)
        abort();
    for (size_t i = 0; i < map->capacity; i++) {
        Entry *entry = &map->entries[i];
        if (entry->name)
            *find(&wider, entry->name, strlen(entry->name)) = *entry;
    }
    free(map->entries);
    *map = wider;
}

bool map_find(const Map *map, const char *name, size_t size, unsigned *value)
{
    if (map->used == 0)
        return false;
    const Entry *entry = find(map, name, size);
    if (!entry->name)
        return false;
    *value = entry->value;
    return true;
}

void map_insert(Map *map, const char *name, size_t size, unsigned value)
{
    if (4 * (map->used + 1) > 3 * map->capacity)
        grow(map);
    Entry *entry = find(map, name, size);
    if (!entry->name) {
        entry->name = malloc(size + 1);
        if (!entry->name)
            abort();
        memcpy(entry->name, name, size);
        entry->name[size] = 0;
        map->used++;
    }
    entry->value = value;
}

void map_free(Map *map)
{
    for (size_t i = 0; i < map->capacity; i++)
        free(map->entries[i].name);
    free(map->entries);
    *map = (Map){NULL, 0, 0};
}
