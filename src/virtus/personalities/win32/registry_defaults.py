"""What the registry of every Windows has, as far as console programs look."""

from typing import Final

from virtus.personalities.win32 import time_zones
from virtus.personalities.win32.process import Process
from virtus.personalities.win32.registry_hive import (
    REG_BINARY,
    REG_DWORD,
    REG_EXPAND_SZ,
    REG_SZ,
    Key,
    dword,
    split,
    string,
)
from virtus.personalities.win32.system_information import (
    BUILD,
    MAJOR,
    MINOR,
    SYSTEM_DIRECTORY,
    WINDOWS_DIRECTORY,
    computer_name,
    processors,
)

LOCAL_MACHINE, CURRENT_USER = "HKEY_LOCAL_MACHINE", "HKEY_CURRENT_USER"
CURRENT_VERSION: Final = rf"{LOCAL_MACHINE}\SOFTWARE\Microsoft\Windows NT\CurrentVersion"
CONTROL: Final = rf"{LOCAL_MACHINE}\SYSTEM\CurrentControlSet\Control"
EXPLORER: Final = r"Software\Microsoft\Windows\CurrentVersion\Explorer"
FOLDERS: Final = {
    "AppData": "APPDATA", "Local AppData": "LOCALAPPDATA", "Personal": "USERPROFILE",
}  # fmt: skip
TIME_ZONE_YEAR: Final = 2024


def _processor() -> tuple[str, str, int]:
    """Vendor, name and MHz of the first processor (proc(5), cpuinfo)."""
    found: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                name, _, value = line.partition(":")
                found.setdefault(name.strip(), value.strip())
    except OSError:
        pass  # the words below do for a processor without a name
    try:
        megahertz = int(float(found.get("cpu MHz", "1000")))
    except ValueError:
        megahertz = 1000
    return found.get("vendor_id", "GenuineIntel"), found.get("model name", "x86-64"), megahertz


def _machine_guid() -> str:
    """The host's own identity, in the form of a GUID (machine-id(5)); the same for all guests of a host."""
    try:
        with open("/etc/machine-id") as file:
            digits = file.read().strip()
    except OSError:
        digits = ""
    digits = digits if len(digits) == 32 else "0" * 32
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def defaults(process: Process) -> Key:
    """The tree that stands below what programs set."""
    root = Key("")

    def put(path: str, **values: str | int) -> Key:
        key, _ = root.make(split(path))
        for name, value in values.items():
            if isinstance(value, int):
                key.set(name, REG_DWORD, dword(value))
            else:
                key.set(name, REG_SZ, string(value))
        return key

    put(
        CURRENT_VERSION, ProductName="Windows 10 Pro", CurrentVersion="6.3", CurrentBuild=str(BUILD),
        CurrentBuildNumber=str(BUILD), CurrentMajorVersionNumber=MAJOR, CurrentMinorVersionNumber=MINOR, UBR=0,
        ReleaseId="2009", DisplayVersion="22H2", EditionID="Professional", InstallationType="Client",
        SystemRoot=WINDOWS_DIRECTORY, PathName=WINDOWS_DIRECTORY, BuildLab=f"{BUILD}.vb_release", RegisteredOwner="",
        CurrentType="Multiprocessor Free",
    )  # fmt: skip
    version = put(
        rf"{LOCAL_MACHINE}\SOFTWARE\Microsoft\Windows\CurrentVersion", ProgramFilesDir=r"C:\Program Files",
        CommonFilesDir=r"C:\Program Files\Common Files",
    )  # fmt: skip
    version.set("ProgramFilesDir (x86)", REG_SZ, string(r"C:\Program Files (x86)"))
    put(rf"{LOCAL_MACHINE}\SOFTWARE\Microsoft\Cryptography", MachineGuid=_machine_guid())
    put(rf"{LOCAL_MACHINE}\SOFTWARE\Classes")
    put(rf"{LOCAL_MACHINE}\SOFTWARE\Policies")
    put(rf"{CONTROL}\FileSystem", LongPathsEnabled=1, NtfsDisable8dot3NameCreation=1)
    put(rf"{CONTROL}\Nls\CodePage", ACP="65001", OEMCP="65001", MACCP="65001")
    put(rf"{CONTROL}\Nls\Language", Default="0409", InstallLanguage="0409")
    put(rf"{CONTROL}\ComputerName\ComputerName", ComputerName=computer_name())
    put(rf"{CONTROL}\ComputerName\ActiveComputerName", ComputerName=computer_name())
    put(rf"{LOCAL_MACHINE}\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters", Hostname=computer_name(dns=True),
        Domain="")  # fmt: skip
    put(rf"{CONTROL}\ProductOptions", ProductType="WinNT")
    environment = put(
        rf"{CONTROL}\Session Manager\Environment", OS="Windows_NT", PROCESSOR_ARCHITECTURE="AMD64",
        NUMBER_OF_PROCESSORS=str(processors()), PATHEXT=".COM;.EXE;.BAT;.CMD",
    )  # fmt: skip
    environment.set("ComSpec", REG_EXPAND_SZ, string(r"%SystemRoot%\system32\cmd.exe"))
    environment.set("windir", REG_EXPAND_SZ, string("%SystemRoot%"))
    environment.set("Path", REG_EXPAND_SZ, string(rf"{SYSTEM_DIRECTORY};{WINDOWS_DIRECTORY}"))
    vendor, name, megahertz = _processor()
    for number in range(processors()):
        key = put(
            rf"{LOCAL_MACHINE}\HARDWARE\DESCRIPTION\System\CentralProcessor\{number}", VendorIdentifier=vendor,
            ProcessorNameString=name, Identifier="Intel64 Family 6",
        )  # fmt: skip
        key.set("~MHz", REG_DWORD, dword(megahertz))
    _put_time_zone(root)
    put(rf"{CURRENT_USER}\Environment")
    put(rf"{CURRENT_USER}\Console")
    put(rf"{CURRENT_USER}\Software\Microsoft")
    put(rf"{CURRENT_USER}\Control Panel\International", LocaleName="en-US", Locale="00000409", sShortDate="M/d/yyyy",
        sTimeFormat="h:mm:ss tt", sDecimal=".", sThousand=",")  # fmt: skip
    for folders in ("Shell Folders", "User Shell Folders"):
        key = put(rf"{CURRENT_USER}\{EXPLORER}\{folders}")
        for value, variable in FOLDERS.items():
            if variable in process.environment:
                key.set(value, REG_SZ, string(process.environment[variable]))
    for other in ("HKEY_USERS", "HKEY_CURRENT_CONFIG", "HKEY_PERFORMANCE_DATA"):
        put(other)
    return root


def _put_time_zone(root: Key) -> None:
    """The host's zone, at present and among the zones that are known."""
    zone = time_zones.zone(TIME_ZONE_YEAR)
    signed = zone.bias & 0xFFFF_FFFF, zone.daylight_bias & 0xFFFF_FFFF
    now, _ = root.make(split(rf"{CONTROL}\TimeZoneInformation"))
    now.set("Bias", REG_DWORD, dword(signed[0]))
    now.set("ActiveTimeBias", REG_DWORD, dword(signed[0]))
    now.set("StandardName", REG_SZ, string(zone.standard_name))
    now.set("DaylightName", REG_SZ, string(zone.daylight_name))
    now.set("TimeZoneKeyName", REG_SZ, string(zone.key))
    known, _ = root.make(split(rf"{CURRENT_VERSION}\Time Zones\{zone.key}"))
    known.set("Std", REG_SZ, string(zone.standard_name))
    known.set("Dlt", REG_SZ, string(zone.daylight_name))
    known.set("Display", REG_SZ, string(zone.key))
    tzi = dword(signed[0]) + bytes(4) + dword(signed[1]) + zone.standard_rule.pack() + zone.daylight_rule.pack()
    known.set("TZI", REG_BINARY, tzi)
