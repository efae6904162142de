"""Made by `python -m virtus.personalities.win32.catalogue`: the functions of each module."""

from typing import Final

FUNCTIONS: Final[dict[str, str]] = {
    "accounts": """
AccessCheck GetFileSecurityW GetKernelObjectSecurity GetNamedSecurityInfoW GetSecurityInfo GetUserNameA GetUserNameExW
GetUserNameW ImpersonateSelf InitializeSecurityDescriptor LookupAccountNameW LookupAccountSidW RevertToSelf
SetFileSecurityW SetSecurityDescriptorDacl SetSecurityDescriptorOwner
""",
    "barriers": """
DeleteSynchronizationBarrier EnterSynchronizationBarrier InitializeSListHead InitializeSynchronizationBarrier
InterlockedFlushSList InterlockedPopEntrySList InterlockedPushEntrySList QueryDepthSList RtlInitializeSListHead
RtlInterlockedFlushSList
""",
    "change_notifications": """
FindCloseChangeNotification FindFirstChangeNotificationA FindFirstChangeNotificationW FindNextChangeNotification
ReadDirectoryChangesW
""",
    "completion": """
CancelIo CancelIoEx CreateIoCompletionPort GetOverlappedResult GetOverlappedResultEx GetQueuedCompletionStatus
GetQueuedCompletionStatusEx NtCancelIoFileEx PostQueuedCompletionStatus SetFileCompletionNotificationModes
""",
    "component_objects": """
CLSIDFromString CoCreateGuid CoCreateInstance CoInitialize CoInitializeEx CoInitializeSecurity CoUninitialize
GetErrorInfo IsEqualGUID RoInitialize RpcStringFreeA RpcStringFreeW SetErrorInfo StringFromGUID2 SysAllocString
SysAllocStringByteLen SysAllocStringLen SysFreeString SysReAllocStringLen SysStringByteLen SysStringLen UuidCreate
UuidCreateSequential UuidToStringA UuidToStringW VariantClear VariantCopy VariantInit
""",
    "console": """
FillConsoleOutputAttribute FillConsoleOutputCharacterA FillConsoleOutputCharacterW GetConsoleCursorInfo GetConsoleMode
GetConsoleScreenBufferInfo GetConsoleScreenBufferInfoEx GetLargestConsoleWindowSize SetConsoleCursorInfo
SetConsoleCursorPosition SetConsoleMode SetConsoleTextAttribute WriteConsoleA WriteConsoleW
""",
    "console_control": """
AllocConsole AttachConsole CreateConsoleScreenBuffer FreeConsole GenerateConsoleCtrlEvent GetConsoleCP
GetConsoleOutputCP GetConsoleProcessList GetConsoleTitleA GetConsoleTitleW GetConsoleWindow
SetConsoleActiveScreenBuffer SetConsoleCP SetConsoleCtrlHandler SetConsoleOutputCP SetConsoleScreenBufferSize
SetConsoleTitleA SetConsoleTitleW VerifyConsoleIoHandle
""",
    "console_input": """
FlushConsoleInputBuffer GetNumberOfConsoleInputEvents PeekConsoleInputA PeekConsoleInputW ReadConsoleA
ReadConsoleInputA ReadConsoleInputW ReadConsoleW WriteConsoleInputW
""",
    "crt": """
___lc_codepage_func ___mb_cur_max_func __getmainargs __set_app_type __setusermatherr _amsg_exit _cexit _errno _exit
_initterm _lock _onexit _unlock abort atexit atoi calloc exit free getenv localeconv malloc memcmp memcpy memmove
memset qsort realloc signal strcat strchr strcmp strcpy strerror strlen strncmp strrchr strstr strtol strtoul wcslen
""",
    "crt_streams": """
__acrt_iob_func __iob_func _snprintf fclose feof ferror fflush fgetc fgets fopen fprintf fputc fputs fread fseek ftell
fwrite getchar printf putchar puts setvbuf sprintf ungetc vfprintf vprintf vsprintf
""",
    "desktop": """
CertCloseStore CertEnumCertificatesInStore CertFindCertificateInStore CertFreeCertificateContext
CertGetCertificateChain CertOpenStore CertOpenSystemStoreW CredDeleteW CredFree CredReadW CredWriteW GetActiveWindow
GetDesktopWindow GetFileVersionInfoSizeW GetFileVersionInfoW GetForegroundWindow GetProcessWindowStation
GetUserObjectInformationW GetWindowThreadProcessId IsUserAnAdmin MessageBoxA MessageBoxW MiniDumpWriteDump
PeekMessageW SendMessageTimeoutW SymFromAddr SymGetLineFromAddr64 SymGetOptions SymInitialize SymSetOptions
VerQueryValueW
""",
    "directories": """
CreateDirectoryA CreateDirectoryW FindClose FindFirstFileA FindFirstFileExA FindFirstFileExW FindFirstFileW
FindNextFileA FindNextFileW GetCurrentDirectoryA GetCurrentDirectoryW RemoveDirectoryA RemoveDirectoryW
SetCurrentDirectoryA SetCurrentDirectoryW
""",
    "environment": """
ExpandEnvironmentStringsA ExpandEnvironmentStringsW FreeEnvironmentStringsA FreeEnvironmentStringsW GetCommandLineA
GetCommandLineW GetEnvironmentStrings GetEnvironmentStringsA GetEnvironmentStringsW GetEnvironmentVariableA
GetEnvironmentVariableW RtlQueryEnvironmentVariable SetEnvironmentStringsW SetEnvironmentVariableA
SetEnvironmentVariableW
""",
    "exceptions": """
AddVectoredContinueHandler AddVectoredExceptionHandler RaiseException RemoveVectoredContinueHandler
RemoveVectoredExceptionHandler RtlAddVectoredExceptionHandler RtlCaptureContext RtlLookupFunctionEntry
RtlRaiseException RtlRestoreContext RtlUnwind RtlUnwindEx RtlVirtualUnwind SetUnhandledExceptionFilter
UnhandledExceptionFilter __C_specific_handler
""",
    "fibers": """
ConvertFiberToThread ConvertThreadToFiber ConvertThreadToFiberEx CreateFiber CreateFiberEx DeleteFiber IsThreadAFiber
SwitchToFiber
""",
    "file_changes": """
SetFileInformationByHandle SetFileTime
""",
    "file_information": """
GetFileAttributesA GetFileAttributesExA GetFileAttributesExW GetFileAttributesW GetFileInformationByHandle
GetFileInformationByHandleEx GetFileTime GetFinalPathNameByHandleA GetFinalPathNameByHandleW SetFileAttributesA
SetFileAttributesW
""",
    "file_locks": """
LockFile LockFileEx NtLockFile NtUnlockFile UnlockFile UnlockFileEx
""",
    "file_transfer": """
NtReadFile NtWriteFile ReadFile ReadFileEx WriteFile WriteFileEx
""",
    "files": """
CreateFile2 CreateFileA CreateFileW FlushFileBuffers GetFileSize GetFileSizeEx ReOpenFile SetEndOfFile SetFilePointer
SetFilePointerEx
""",
    "handle_functions": """
CloseHandle DuplicateHandle GetFileType GetHandleInformation GetStdHandle NtClose SetHandleInformation SetStdHandle
""",
    "hashes": """
BCryptCloseAlgorithmProvider BCryptCreateHash BCryptDestroyHash BCryptDuplicateHash BCryptFinishHash BCryptGetProperty
BCryptHash BCryptHashData BCryptOpenAlgorithmProvider CryptAcquireContextA CryptAcquireContextW CryptCreateHash
CryptDestroyHash CryptGetHashParam CryptHashData CryptReleaseContext
""",
    "heaps": """
CoTaskMemAlloc CoTaskMemFree CoTaskMemRealloc GetProcessHeap GetProcessHeaps GlobalAlloc GlobalFree GlobalHandle
GlobalLock GlobalReAlloc GlobalSize GlobalUnlock HeapAlloc HeapCompact HeapCreate HeapDestroy HeapFree HeapLock
HeapQueryInformation HeapReAlloc HeapSetInformation HeapSize HeapUnlock HeapValidate HeapWalk LocalAlloc LocalFree
LocalLock LocalReAlloc LocalSize LocalUnlock RtlAllocateHeap RtlCreateHeap RtlDestroyHeap RtlFreeHeap
RtlReAllocateHeap RtlSizeHeap
""",
    "jobs": """
AssignProcessToJobObject CreateJobObjectA CreateJobObjectW IsProcessInJob QueryInformationJobObject
SetInformationJobObject TerminateJobObject
""",
    "keyed_events": """
NtCreateKeyedEvent NtReleaseKeyedEvent NtWaitForKeyedEvent
""",
    "last_error": """
GetLastError RtlGetLastNtStatus RtlGetLastWin32Error RtlNtStatusToDosError RtlNtStatusToDosErrorNoTeb
RtlSetLastWin32Error RtlSetLastWin32ErrorAndNtStatusFromNtStatus SetLastError SetLastErrorEx
""",
    "library_directories": """
AddDllDirectory GetDllDirectoryW RemoveDllDirectory SetDefaultDllDirectories SetDllDirectoryA SetDllDirectoryW
""",
    "local_storage": """
FlsAlloc FlsFree FlsGetValue FlsSetValue TlsAlloc TlsFree TlsGetValue TlsSetValue
""",
    "locale": """
EnumSystemCodePagesW EnumSystemLocalesEx EnumSystemLocalesW GetCurrencyFormatEx GetDateFormatA GetDateFormatEx
GetDateFormatW GetGeoInfoW GetLocaleInfoA GetLocaleInfoEx GetLocaleInfoW GetNLSVersionEx GetNumberFormatEx
GetNumberFormatW GetProcessPreferredUILanguages GetSystemDefaultLCID GetSystemDefaultLangID GetSystemDefaultLocaleName
GetSystemDefaultUILanguage GetSystemPreferredUILanguages GetThreadLocale GetThreadPreferredUILanguages
GetThreadUILanguage GetTimeFormatA GetTimeFormatEx GetTimeFormatW GetUserDefaultLCID GetUserDefaultLangID
GetUserDefaultLocaleName GetUserDefaultUILanguage GetUserGeoID GetUserPreferredUILanguages IsNLSDefinedString
IsValidLocale IsValidLocaleName LCIDToLocaleName LocaleNameToLCID ResolveLocaleName SetLocaleInfoW SetThreadLocale
SetThreadUILanguage
""",
    "locks": """
AcquireSRWLockExclusive AcquireSRWLockShared DeleteCriticalSection EnterCriticalSection InitializeConditionVariable
InitializeCriticalSection InitializeCriticalSectionAndSpinCount InitializeCriticalSectionEx InitializeSRWLock
LeaveCriticalSection ReleaseSRWLockExclusive ReleaseSRWLockShared RtlDeleteCriticalSection RtlEnterCriticalSection
RtlInitializeCriticalSection RtlLeaveCriticalSection RtlTryEnterCriticalSection SetCriticalSectionSpinCount
SleepConditionVariableCS SleepConditionVariableSRW TryAcquireSRWLockExclusive TryAcquireSRWLockShared
TryEnterCriticalSection WaitOnAddress WakeAllConditionVariable WakeByAddressAll WakeByAddressSingle
WakeConditionVariable
""",
    "mappings": """
CreateFileMappingA CreateFileMappingW FlushViewOfFile MapViewOfFile MapViewOfFileEx NtCreateSection NtMapViewOfSection
NtUnmapViewOfSection OpenFileMappingA OpenFileMappingW UnmapViewOfFile UnmapViewOfFileEx
""",
    "messages": """
FormatMessageA FormatMessageW
""",
    "module_functions": """
DisableThreadLibraryCalls FreeLibrary GetModuleFileNameA GetModuleFileNameW GetModuleHandleA GetModuleHandleExA
GetModuleHandleExW GetModuleHandleW GetProcAddress LoadLibraryA LoadLibraryExA LoadLibraryExW LoadLibraryW
RtlPcToFileHeader
""",
    "moving": """
CopyFileA CopyFileExW CopyFileW CreateHardLinkA CreateHardLinkW CreateSymbolicLinkW DeleteFileA DeleteFileW MoveFileA
MoveFileExA MoveFileExW MoveFileW ReplaceFileW
""",
    "name_resolution": """
FreeAddrInfoW GetAddrInfoW GetHostNameW InetNtopW InetPtonW freeaddrinfo getaddrinfo gethostbyname gethostname
getnameinfo if_nametoindex inet_addr inet_ntop inet_pton
""",
    "native_memory": """
IsBadCodePtr IsBadReadPtr IsBadStringPtrA IsBadStringPtrW IsBadWritePtr NtAllocateVirtualMemory NtFreeVirtualMemory
NtProtectVirtualMemory NtQueryVirtualMemory
""",
    "native_runtime": """
NtQueryInformationProcess NtQuerySystemInformation NtSetInformationProcess NtSetInformationThread RtlAreBitsClear
RtlAreBitsSet RtlCaptureStackBackTrace RtlClearBits RtlCompareUnicodeString RtlEqualUnicodeString RtlFreeUnicodeString
RtlGetSystemBootStatus RtlInitAnsiString RtlInitUnicodeString RtlInitializeBitMap RtlRandomEx RtlSetBits
RtlUTF8ToUnicodeN RtlUnicodeToUTF8N RtlUniform RtlUpcaseUnicodeChar RtlWaitOnAddress RtlWakeAddressAll
RtlWakeAddressSingle _vsnprintf
""",
    "nt_files": """
NtCreateFile NtCreateNamedPipeFile NtDeleteFile NtFlushBuffersFile NtOpenFile NtQueryAttributesFile
NtQueryDirectoryFile NtQueryDirectoryFileEx NtQueryFullAttributesFile NtQueryInformationFile NtSetInformationFile
""",
    "nt_volumes": """
DeviceIoControl NtFsControlFile NtQueryVolumeInformationFile
""",
    "once": """
InitOnceBeginInitialize InitOnceComplete InitOnceExecuteOnce InitOnceInitialize
""",
    "path_functions": """
AreFileApisANSI GetDiskFreeSpaceExW GetDiskFreeSpaceW GetDriveTypeW GetFullPathNameA GetFullPathNameW
GetLogicalDriveStringsW GetLogicalDrives GetLongPathNameW GetShortPathNameW GetTempFileNameW GetTempPath2W
GetTempPathA GetTempPathW GetVolumeInformationByHandleW GetVolumeInformationW GetVolumePathNameW
NeedCurrentDirectoryForExePathW SearchPathA SearchPathW SetFileApisToANSI SetFileApisToOEM
""",
    "pipes": """
ConnectNamedPipe CreateNamedPipeA CreateNamedPipeW CreatePipe DisconnectNamedPipe GetNamedPipeClientProcessId
GetNamedPipeHandleStateW GetNamedPipeInfo GetNamedPipeServerProcessId PeekNamedPipe SetNamedPipeHandleState
WaitNamedPipeA WaitNamedPipeW
""",
    "process_accounting": """
FlushProcessWriteBuffers GetPriorityClass GetProcessHandleCount GetProcessIoCounters GetProcessMemoryInfo
GetProcessPriorityBoost GetSystemTimes GetThreadContext K32EmptyWorkingSet K32EnumProcessModules K32GetModuleBaseNameA
K32GetModuleBaseNameW K32GetModuleInformation K32GetPerformanceInfo K32GetProcessMemoryInfo QueryProcessCycleTime
QueryThreadCycleTime SetPriorityClass SetProcessInformation SetProcessMitigationPolicy SetProcessPriorityBoost
SetProcessWorkingSetSize SetThreadContext
""",
    "process_functions": """
DebugBreak ExitProcess FatalAppExitA FatalExit GetExitCodeProcess GetProcessVersion GetStartupInfoA GetStartupInfoW
LdrAddRefDll NtTerminateProcess RaiseFailFastException RtlExitUserProcess RtlGetCurrentPeb
SetProcessShutdownParameters TerminateProcess __wine_dbg_get_channel_flags __wine_dbg_header __wine_dbg_output
__wine_dbg_strdup
""",
    "processes": """
CreateProcessA CreateProcessW DeleteProcThreadAttributeList GetProcessId InitializeProcThreadAttributeList OpenProcess
UpdateProcThreadAttribute
""",
    "processors": """
GetActiveProcessorCount GetActiveProcessorGroupCount GetCurrentProcessorNumber GetCurrentProcessorNumberEx
GetLogicalProcessorInformation GetLogicalProcessorInformationEx GetMaximumProcessorCount GetMaximumProcessorGroupCount
GetNumaHighestNodeNumber GetNumaNodeProcessorMaskEx GetProcessAffinityMask GetThreadGroupAffinity
SetProcessAffinityMask SetThreadAffinityMask SetThreadGroupAffinity SetThreadIdealProcessor
""",
    "random_bytes": """
BCryptGenRandom CryptGenRandom ProcessPrng SystemFunction036
""",
    "registry": """
RegCloseKey RegCreateKeyExA RegCreateKeyExW RegCreateKeyW RegDeleteKeyA RegDeleteKeyExW RegDeleteKeyW RegDeleteTreeW
RegDeleteValueA RegDeleteValueW RegFlushKey RegGetValueA RegGetValueW RegNotifyChangeKeyValue RegOpenCurrentUser
RegOpenKeyA RegOpenKeyExA RegOpenKeyExW RegOpenKeyW RegQueryValueExA RegQueryValueExW RegSetKeyValueW RegSetValueExA
RegSetValueExW
""",
    "registry_enumeration": """
RegEnumKeyExA RegEnumKeyExW RegEnumKeyW RegEnumValueA RegEnumValueW RegQueryInfoKeyA RegQueryInfoKeyW
""",
    "resources": """
FindResourceA FindResourceExW FindResourceW FreeResource LoadResource LoadStringW LockResource SizeofResource
""",
    "security": """
AdjustTokenPrivileges AllocateAndInitializeSid CheckTokenMembership ConvertSidToStringSidA ConvertSidToStringSidW
ConvertStringSidToSidW CopySid CreateWellKnownSid DuplicateTokenEx EqualSid FreeSid GetLengthSid GetSidLengthRequired
GetSidSubAuthority GetSidSubAuthorityCount GetTokenInformation InitializeSid IsValidSid LookupPrivilegeValueA
LookupPrivilegeValueW OpenProcessToken OpenThreadToken PrivilegeCheck
""",
    "shell": """
CommandLineToArgvW GetUserProfileDirectoryW PathAppendW PathFindExtensionW PathFindFileNameW PathIsRelativeW
PathMatchSpecW PathRemoveFileSpecW SHGetFolderPathA SHGetFolderPathW SHGetKnownFolderPath SHGetSpecialFolderPathW
ShellExecuteA ShellExecuteW StrStrIW
""",
    "snapshots": """
CreateToolhelp32Snapshot Module32FirstW Module32NextW Process32First Process32FirstW Process32Next Process32NextW
Thread32First Thread32Next
""",
    "socket_overlapped": """
AcceptEx ConnectEx DisconnectEx GetAcceptExSockaddrs WSAGetOverlappedResult
""",
    "socket_polls": """
NtDeviceIoControlFile
""",
    "socket_transfer": """
WSACloseEvent WSACreateEvent WSAEnumNetworkEvents WSAEventSelect WSAPoll WSARecv WSARecvFrom WSAResetEvent WSASend
WSASendTo WSASetEvent WSAWaitForMultipleEvents __WSAFDIsSet recv recvfrom select send sendto
""",
    "string_functions": """
CharLowerA CharLowerBuffA CharLowerBuffW CharLowerW CharNextA CharNextExA CharNextW CharPrevA CharPrevExA CharPrevW
CharUpperA CharUpperBuffA CharUpperBuffW CharUpperW IsCharAlphaNumericW IsCharAlphaW IsCharLowerW IsCharUpperW
lstrcatA lstrcatW lstrcmpA lstrcmpW lstrcmpiA lstrcmpiW lstrcpyA lstrcpyW lstrcpynA lstrcpynW lstrlenA lstrlenW
""",
    "strings": """
CompareStringA CompareStringEx CompareStringOrdinal CompareStringW FindStringOrdinal FoldStringW GetACP GetCPInfo
GetCPInfoExA GetCPInfoExW GetOEMCP GetStringTypeA GetStringTypeExA GetStringTypeExW GetStringTypeW IsDBCSLeadByte
IsDBCSLeadByteEx IsNormalizedString IsValidCodePage LCMapStringA LCMapStringEx LCMapStringW MultiByteToWideChar
NormalizeString WideCharToMultiByte
""",
    "synchronisation": """
CancelWaitableTimer CreateEventA CreateEventExA CreateEventExW CreateEventW CreateMutexA CreateMutexExW CreateMutexW
CreateSemaphoreA CreateSemaphoreExW CreateSemaphoreW CreateWaitableTimerA CreateWaitableTimerExW CreateWaitableTimerW
NtCreateEvent NtSetEvent OpenEventA OpenEventW OpenMutexW OpenSemaphoreA OpenSemaphoreW OpenWaitableTimerW PulseEvent
ReleaseMutex ReleaseSemaphore ResetEvent SetEvent SetWaitableTimer SetWaitableTimerEx
""",
    "system_information": """
Beep CallNtPowerInformation CheckRemoteDebuggerPresent DecodePointer EncodePointer GetComputerNameA GetComputerNameExA
GetComputerNameExW GetComputerNameW GetEnabledXStateFeatures GetErrorMode GetNativeSystemInfo
GetPhysicallyInstalledSystemMemory GetProductInfo GetSystemDirectoryA GetSystemDirectoryW GetSystemInfo
GetSystemMetrics GetSystemPowerStatus GetSystemWindowsDirectoryW GetThreadErrorMode GetVersion GetVersionExA
GetVersionExW GetWindowsDirectoryA GetWindowsDirectoryW GlobalMemoryStatusEx IsDebuggerPresent
IsProcessorFeaturePresent IsWow64Process IsWow64Process2 OutputDebugStringA OutputDebugStringW RtlGetNtVersionNumbers
RtlGetVersion SetErrorMode SetThreadErrorMode SetThreadExecutionState VerSetConditionMask VerifyVersionInfoA
VerifyVersionInfoW WerGetFlags WerSetFlags
""",
    "thread_pool": """
CallbackMayRunLong CloseThreadpool CloseThreadpoolTimer CloseThreadpoolWait CloseThreadpoolWork CreateThreadpool
CreateThreadpoolTimer CreateThreadpoolWait CreateThreadpoolWork FreeLibraryWhenCallbackReturns IsThreadpoolTimerSet
QueueUserWorkItem SetEventWhenCallbackReturns SetThreadpoolThreadMaximum SetThreadpoolThreadMinimum SetThreadpoolTimer
SetThreadpoolTimerEx SetThreadpoolWait SubmitThreadpoolWork TrySubmitThreadpoolCallback
WaitForThreadpoolTimerCallbacks WaitForThreadpoolWaitCallbacks WaitForThreadpoolWorkCallbacks
""",
    "threads": """
CreateRemoteThreadEx CreateThread ExitThread FreeLibraryAndExitThread GetCurrentProcess GetCurrentProcessId
GetCurrentThread GetCurrentThreadId GetCurrentThreadStackLimits GetExitCodeThread GetProcessIdOfThread GetProcessTimes
GetThreadDescription GetThreadId GetThreadPriority GetThreadTimes NtQueryInformationThread NtResumeThread
NtSuspendThread OpenThread ResumeThread RtlExitUserThread SetThreadDescription SetThreadInformation SetThreadPriority
SetThreadPriorityBoost SetThreadStackGuarantee SuspendThread TerminateThread
""",
    "time": """
CompareFileTime DosDateTimeToFileTime FileTimeToDosDateTime FileTimeToLocalFileTime FileTimeToSystemTime
GetDynamicTimeZoneInformation GetLocalTime GetSystemTime GetSystemTimeAdjustment GetSystemTimeAsFileTime
GetSystemTimePreciseAsFileTime GetTickCount GetTickCount64 GetTimeZoneInformation GetTimeZoneInformationForYear
LocalFileTimeToFileTime NtQueryPerformanceCounter NtQuerySystemTime NtQueryTimerResolution NtSetTimerResolution
QueryInterruptTime QueryInterruptTimePrecise QueryPerformanceCounter QueryPerformanceFrequency
QueryUnbiasedInterruptTime QueryUnbiasedInterruptTimePrecise RtlGetSystemTimePrecise RtlQueryPerformanceCounter
RtlQueryPerformanceFrequency RtlSecondsSince1970ToTime RtlSystemTimeToLocalTime RtlTimeFieldsToTime
RtlTimeToSecondsSince1970 RtlTimeToTimeFields SetLocalTime SetSystemTime SystemTimeToFileTime
SystemTimeToTzSpecificLocalTime SystemTimeToTzSpecificLocalTimeEx TzSpecificLocalTimeToSystemTime
TzSpecificLocalTimeToSystemTimeEx timeBeginPeriod timeEndPeriod timeGetDevCaps timeGetTime
""",
    "timer_queues": """
ChangeTimerQueueTimer CreateTimerQueue CreateTimerQueueTimer DeleteTimerQueueEx DeleteTimerQueueTimer
RegisterWaitForSingleObject UnregisterWait UnregisterWaitEx
""",
    "virtual_memory": """
DiscardVirtualMemory FlushInstructionCache GetLargePageMinimum PrefetchVirtualMemory ReadProcessMemory VirtualAlloc
VirtualAlloc2 VirtualAllocEx VirtualAllocExNuma VirtualFree VirtualFreeEx VirtualLock VirtualProtect VirtualProtectEx
VirtualQuery VirtualQueryEx VirtualUnlock WriteProcessMemory
""",
    "volumes": """
CancelSynchronousIo CreateDirectoryExW DefineDosDeviceW GetBinaryTypeW GetDriveTypeA GetVolumeInformationA
GetVolumeNameForVolumeMountPointW GetVolumePathNamesForVolumeNameW QueryDosDeviceW SetHandleCount SetVolumeLabelW
""",
    "waiting": """
NtAlertThread NtDelayExecution NtQueueApcThread NtTestAlert NtWaitForMultipleObjects NtWaitForSingleObject
NtYieldExecution QueueUserAPC SignalObjectAndWait Sleep SleepEx SwitchToThread WaitForMultipleObjects
WaitForMultipleObjectsEx WaitForSingleObject WaitForSingleObjectEx
""",
    "winsock": """
WSACleanup WSAConnect WSAEnumProtocolsW WSAGetLastError WSAIoctl WSASetLastError WSASocketA WSASocketW WSAStartup
accept bind closesocket connect getpeername getsockname getsockopt htonl htons ioctlsocket listen ntohl ntohs
setsockopt shutdown socket
""",
}
DLLS: Final = """
advapi32 api-ms-win-core-memory-l1-1-6 api-ms-win-core-realtime-l1-1-1 api-ms-win-core-synch-l1-2-0
api-ms-win-core-winrt-l1-1-0 api-ms-win-downlevel-shell32-l1-1-0 bcrypt bcryptprimitives combase crypt32 cryptbase
dbghelp iphlpapi kernel32 kernelbase msvcrt mswsock normaliz ntdll ole32 oleaut32 powrprof psapi rpcrt4 secur32
shell32 shfolder shlwapi ucrtbase user32 userenv version winmm ws2_32
"""
