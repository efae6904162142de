/* Functions that machine code serves, with pointers to nothing: the fault is one of the calling program's, whose frame
   is found from where it happened. */
#include <stdio.h>
#include <windows.h>

static volatile LONG faults, unwound;
static char *low, *high;

static LONG CALLBACK step_out(EXCEPTION_POINTERS *found)
{
    CONTEXT *context = found->ContextRecord;
    DWORD64 base, establisher;
    void *data = NULL;
    char *start = low;
    faults += found->ExceptionRecord->ExceptionCode == EXCEPTION_ACCESS_VIOLATION;
    for (int i = 0; i < 8 && ((char *)context->Rip < start || (char *)context->Rip >= high); i++) {
        PRUNTIME_FUNCTION entry = RtlLookupFunctionEntry(context->Rip, &base, NULL);
        if (entry) {
            RtlVirtualUnwind(UNW_FLAG_NHANDLER, base, context->Rip, entry, context, &data, &establisher, NULL);
        } else { /* without a frame */
            context->Rip = *(DWORD64 *)context->Rsp;
            context->Rsp += 8;
        }
    }
    unwound += (char *)context->Rip >= start && (char *)context->Rip < high;
    context->Rax = 77;
    return EXCEPTION_CONTINUE_EXECUTION;
}

int main(void)
{
    IMAGE_NT_HEADERS *headers;
    WIN32_FIND_DATAW entry;
    void *nothing = VirtualAlloc(NULL, 0x10000, MEM_RESERVE, PAGE_NOACCESS);
    wchar_t *edge = (wchar_t *)((char *)VirtualAlloc(NULL, 0x1000, MEM_COMMIT, PAGE_READWRITE) + 0xFF0);
    char *last = (char *)VirtualAlloc(NULL, 0x1000, MEM_COMMIT, PAGE_READWRITE) + 0xFE0;
    low = (char *)GetModuleHandleW(NULL);
    headers = (IMAGE_NT_HEADERS *)(low + ((IMAGE_DOS_HEADER *)low)->e_lfanew);
    high = low + headers->OptionalHeader.SizeOfImage;
    HANDLE search = FindFirstFileW(L"*", &entry), file;
    DWORD count;
    AddVectoredExceptionHandler(1, step_out);
    for (int i = 0; i < 8; i++)
        edge[i] = L'a'; /* and no end */
    printf("CreateFileW %d\n", (int)(INT_PTR)CreateFileW(nothing, GENERIC_READ, 7, NULL, OPEN_EXISTING, 0, NULL));
    printf("CreateFileW %d\n", (int)(INT_PTR)CreateFileW(edge, GENERIC_READ, 7, NULL, OPEN_EXISTING, 0, NULL));
    printf("GetFileAttributesW %d\n", (int)GetFileAttributesW(nothing));
    printf("GetFileAttributesExW %d\n", GetFileAttributesExW(L".", GetFileExInfoStandard, nothing));
    printf("GetFileAttributesExW %d\n", GetFileAttributesExW(L".", GetFileExInfoStandard, last));
    printf("FindNextFileW %d\n", FindNextFileW(search, nothing));
    printf("FindNextFileW %d\n", FindNextFileW(search, (WIN32_FIND_DATAW *)last));
    file = CreateFileW(L"file", GENERIC_READ, 7, NULL, OPEN_EXISTING, 0, NULL);
    printf("GetFileSize %d\n", (int)GetFileSize(file, nothing));
    printf("ReadFile %d\n", ReadFile(file, &entry, 1, nothing, NULL));
    printf("ReadFile into nothing %d\n", ReadFile(file, nothing, 4, &count, NULL));
    printf("faults %ld, unwound %ld\n", faults, unwound);
    return 0;
}
